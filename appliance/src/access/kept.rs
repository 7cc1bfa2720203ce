//! What is kept across restarts: sessions and tokens, by their digests.

use std::{net::IpAddr, time::Duration};

use super::secret::Digest;

/// A row that is kept, or no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// A session, or its end.
    Session(Digest, Option<KeptSession>),
    /// A token, or its end.
    Token(Digest, Option<KeptToken>),
}

/// What is kept of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSession {
    /// Where it signed in from.
    pub address: IpAddr,
    /// When, in milliseconds since 1970; none where the clock was not set.
    pub created_ms: Option<i64>,
    /// How long the Pi has run since.
    pub age: Duration,
}

/// What is kept of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptToken {
    /// What a person calls it.
    pub name: String,
    /// When it was made, in milliseconds since 1970; none where the clock was not set.
    pub created_ms: Option<i64>,
    /// When it was last used, to about an hour; none for never, or where the clock was not set.
    pub used_ms: Option<i64>,
}
