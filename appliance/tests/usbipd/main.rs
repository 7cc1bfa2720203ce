//! The USB/IP server against real sockets and a host without USB.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

mod abuse;
mod host;
mod import;
mod restart;
mod rig;
mod session;
mod stock;
