//! Pairing from the VM's side: what `vm-helper join` and the Pi tell each other over HTTP, in JSON.
//!
//! `GET /join/TOKEN/invitation` answers an [`Invitation`]; `POST /join/TOKEN` takes a [`Report`],
//! consumes the token and answers [`Joined`]. What goes wrong is answered by a [`Refusal`]. Both sides
//! ignore keys that they do not know.

use serde::{Deserialize, Serialize};

/// The largest message either side accepts, in bytes: a few host keys, of which RSA's are the longest.
pub const MAX_MESSAGE: usize = 16 * 1024;

/// What the Pi offers to a machine that has the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The Pi's public key, `TYPE BASE64`; what it may do is up to the machine.
    pub key: String,
    /// The user on the VM that the person named in the portal, if any.
    #[serde(default)]
    pub user: Option<String>,
}

/// What the machine says of itself, once it is ready to be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The user who lets the Pi in.
    pub user: String,
    /// The machine's name.
    pub host_name: String,
    /// vm-helper's version.
    pub version: String,
    /// The public halves of its SSH host keys, each `TYPE BASE64`.
    pub host_keys: Vec<String>,
}

/// What the Pi did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The address under which the Pi reaches the VM from now on.
    pub host: String,
    /// Fingerprints of the host keys that it pinned, as ssh shows them.
    pub host_keys: Vec<String>,
    /// Fingerprint of its own key.
    pub key: String,
}

/// Why it did nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong, for people.
    pub error: String,
    /// What mends it.
    #[serde(default)]
    pub remedy: String,
}
