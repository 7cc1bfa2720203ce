//! The store on real files.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod disk;
mod events;
mod rig;
mod rows;
