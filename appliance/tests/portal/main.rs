//! The portal over real sockets.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

mod account;
mod downloads;
mod entry;
mod live;
mod pages;
mod pairing;
mod refusals;
mod rig;
#[allow(dead_code, reason = "the example uses what these tests do not")]
mod sample;
