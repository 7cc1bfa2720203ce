//! The paired VM: one kept SSH session with one `usb-event-handler` on it.
//!
//! - [`link`]: keeps the session, takes requests
//! - [`event`]: what it reports
//! - [`conf`]: the record of the pairing, vm.conf
//! - [`key`]: the Pi's own key
//! - [`public_key`]: a public key and its fingerprint
//! - [`host_key`]: the VM's pinned host keys
//! - [`pairing`]: makes and ends the pairing
//! - [`diagnosis`]: looks at every step of the way to a VM
//! - [`discovery`]: the Pi's own name on the network, and the VMs that are there
//! - [`bring`]: brings the Pi's key to a VM with a password
//! - [`askpass`]: tells ssh a password, once
//!
//! Inside: `session` opens one session, `master` holds the ssh process, `conversation` talks on it,
//! `failure` tells apart why there is none. `visit` is a short session for one command.

pub mod askpass;
pub mod bring;
pub mod conf;
mod conversation;
pub mod diagnosis;
pub mod discovery;
pub mod event;
mod failure;
pub mod host_key;
pub mod key;
mod lines;
pub mod link;
mod master;
pub mod pairing;
pub mod public_key;
mod session;
mod visit;

pub use discovery::Discovery;
pub use event::{Event, Failure, FailureKind, Pairing};
pub use link::{Config, Link, LinkHandle};
pub use pairing::Pairer;
pub use public_key::PublicKey;
