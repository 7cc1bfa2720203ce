//! The portal over real sockets.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

mod account;
mod api;
mod devices;
mod downloads;
mod entry;
mod every_route;
mod history;
mod join;
mod live;
mod pages;
mod pairing;
#[allow(dead_code, reason = "the example uses what these tests do not")]
mod past;
mod refusals;
mod rig;
#[allow(dead_code, reason = "the example uses what these tests do not")]
mod sample;
mod schema;
