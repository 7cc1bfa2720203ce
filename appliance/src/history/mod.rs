//! What is kept across restarts, in one SQLite file on the data partition.
//!
//! - [`store`]: what the rest of the appliance uses; never waits for the disk, never fails
//! - [`event`]: what can happen; [`stamp`]: when; [`record`]: an event as it is kept, and which are wanted
//! - [`queue`]: what waits to be written; [`repeats`]: what becomes one record with a count
//! - [`start`]: that the appliance started, and whether it was updated
//! - [`counts`]: how often what happened, for programs that watch
//! - [`writer`]: writes it, once a second at most; a damaged file is set aside and replaced
//! - [`database`]: the file itself; its tables are in [`change`], [`access`], [`kept`], [`events`] and [`seen`]
//!
//! A full, read-only or damaged disk costs what would have been stored, never an attachment.

mod access;
mod change;
mod counts;
mod database;
mod event;
mod events;
mod kept;
mod queue;
mod record;
mod repeats;
mod seen;
mod stamp;
mod start;
mod store;
mod writer;

pub use counts::{BUCKETS_MS, Counts};
pub use event::{AttachDetail, Event, Kind, Sighting, Subject};
pub use record::{Cursor, Filter, Known, Record};
pub use stamp::{Clock, EARLIEST_MS, Now, Stamp};
pub use start::record_start;
pub use store::{Options, Reading, Store};
