//! Who may use the portal. Knows nothing of HTTP.
//!
//! - [`gate`]: the handle: claiming, signing in, sessions
//! - [`password`]: the rules for a password, its hash, and the file that the hash lies in
//! - [`sessions`]: who is signed in
//! - [`tokens`]: which programs may use the API
//! - [`kept`]: what is kept of both
//! - [`tries`]: how often an address may try
//! - [`reset`]: the file on the boot partition that removes a forgotten password
//! - [`secret`]: random tokens, of which only digests are kept
//! - [`error`]: why somebody is not let in
//!
//! The password is kept outside the database: a damaged database costs sessions, and never opens
//! the portal to everybody.

mod error;
mod gate;
mod kept;
mod password;
mod reset;
mod secret;
mod sessions;
mod tokens;
mod tries;

pub use error::AccessError;
pub use gate::{Access, Config, Door};
pub use kept::{Kept, KeptSession, KeptToken};
pub use password::Cost;
pub use secret::{Digest, Secret};
pub(crate) use secret::{derived, digest, from_hex, hex};
pub use sessions::{LONGEST, Session};
pub use tokens::Token;
