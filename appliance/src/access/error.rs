//! Why somebody is not let in.

use std::{io, path::PathBuf, time::Duration};

use super::password::{LEAST_CHARACTERS, MOST_BYTES};

/// Why somebody is not let in, or a password not set. The messages are whole sentences, as they
/// are shown to people.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The password is too short.
    #[error(
        "This password has {0} of at least {LEAST_CHARACTERS} characters. Choose a longer one, such as four unrelated words."
    )]
    TooShort(usize),
    /// The password is too long.
    #[error("This password is longer than {MOST_BYTES} bytes. Choose a shorter one.")]
    TooLong,
    /// The password and its repetition differ.
    #[error("The two passwords are not the same. Type the same one twice.")]
    Differ,
    /// The portal was claimed before.
    #[error("This Pi was claimed already. Sign in with the password that was chosen then.")]
    Claimed,
    /// The portal was not claimed yet.
    #[error("This Pi was not claimed yet. Open its portal and choose a password first.")]
    NotClaimed,
    /// The time for claiming is over.
    #[error("The time for claiming this Pi is over. Restart it, and claim it within 30 minutes.")]
    Over,
    /// The password is wrong.
    #[error("This is not the password.")]
    Wrong,
    /// There were too many tries.
    #[error("Too many tries from this address. Wait {} seconds and try again.", .0.as_secs())]
    TooMany(Duration),
    /// A token's name cannot be used.
    #[error(
        "Give the token a name of 1 to {0} characters, such as that of the program that will use it."
    )]
    Name(usize),
    /// Another token has the name.
    #[error("There is a token of this name already. Choose another name, or remove that one.")]
    SameName,
    /// There are too many tokens.
    #[error(
        "There are {0} tokens already, which is as many as can be. Remove one that is not used."
    )]
    TooManyTokens(usize),
    /// Too many people try at once.
    #[error("The Pi is busy with other tries to sign in. Try again in a moment.")]
    Busy,
    /// The password's file cannot be used.
    #[error("{0}")]
    Broken(String),
    /// The password's file cannot be written.
    #[error("The password was not set: {} cannot be written ({source}).", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel gives no random numbers.
    #[error("The Pi has no random numbers to sign you in with ({0}). Restart it.")]
    Random(io::Error),
    /// The password could not be hashed.
    #[error("The password could not be hashed ({0}).")]
    Hash(String),
}
