//! What is kept across restarts, in one SQLite file on the data partition.
//!
//! - [`store`]: what the rest of the appliance uses; never waits for the disk, never fails
//! - [`database`]: the file itself: opened, set aside when it is damaged, read and written
//!
//! A full, read-only or damaged disk costs what would have been stored, never an attachment.

mod database;
mod store;

pub use store::Store;
