//! The USB/IP server on port 3240: handshake, who may import, handing the socket to the kernel.
//!
//! - [`event`]: what it is told and what it reports
//! - [`Server`], with [`bind`]: accepts connections; each goes through `handshake`, then `import`
//! - [`Exporter`]: what it needs of the devices
//! - [`Handle`]: the manager's way to the sessions
//!
//! A session's data path is the kernel's. What stays here is the socket's file (`session`), watched
//! for its end (`hangup`); the sessions of an earlier process are looked at instead (`inherited`).

pub mod event;
mod exporter;
mod handle;
mod handshake;
mod hangup;
mod import;
mod inherited;
mod kernel;
mod listener;
mod report;
mod server;
mod session;
mod slots;
mod socket;
mod waiting;

pub use event::{Event, Exports, RefusedImport};
pub use exporter::Exporter;
pub use handle::{EndError, Handle};
pub use listener::{BindError, PORT, bind};
pub use server::{Server, ServerError};
pub use session::SessionFacts;
