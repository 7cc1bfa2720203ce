//! An event as it is kept.

use std::sync::Arc;

use super::{Clock, Event, Kind, Stamp};
use crate::manager::Identity;

/// An event with its place and time.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its place in the order of events; never used twice.
    pub sequence: i64,
    /// The kernel's boot in which it happened.
    pub boot_id: Arc<str>,
    /// When, since that boot, in milliseconds.
    pub mono_ms: i64,
    /// When, in milliseconds since 1970; as far as `clock` says.
    pub unix_ms: i64,
    /// How far `unix_ms` can be trusted.
    pub clock: Clock,
    /// What happened.
    pub event: Event,
    /// How often: repeats in quick succession are one record.
    pub count: u32,
    /// `unix_ms` of the latest repeat.
    pub last_ms: i64,
}

impl Record {
    /// Work out the time, if this happened in the present boot before the clock was set.
    pub(super) fn date(&mut self, boot_id: &str, now: Stamp) {
        if self.clock == Clock::Unset && now.is_set() && *self.boot_id == *boot_id {
            // The latest repeat may have come after the clock was set.
            if self.last_ms < now.unix_at(0) {
                self.last_ms = now.unix_at(self.mono_ms + (self.last_ms - self.unix_ms));
            }
            self.unix_ms = now.unix_at(self.mono_ms);
            self.clock = Clock::WorkedOut;
        }
    }
}

/// Which records are wanted; what is none does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this kind.
    pub kind: Option<Kind>,
    /// About this device.
    pub device: Option<Identity>,
    /// Not before this time, in milliseconds since 1970.
    pub from_ms: Option<i64>,
    /// Before this time, in milliseconds since 1970.
    pub to_ms: Option<i64>,
}

impl Filter {
    pub(super) fn admits(&self, record: &Record) -> bool {
        let device = record.event.device.as_ref().map(|device| &device.identity);
        self.kind.is_none_or(|kind| kind == record.event.kind)
            && self
                .device
                .as_ref()
                .is_none_or(|wanted| device == Some(wanted))
            && self.from_ms.is_none_or(|from| record.unix_ms >= from)
            && self.to_ms.is_none_or(|to| record.unix_ms < to)
    }
}

/// From where on, and in which direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// The newest first.
    Newest,
    /// What is older than this sequence number, the newest first.
    Before(i64),
    /// What is newer than this sequence number, the oldest first.
    After(i64),
}

impl Cursor {
    pub(super) fn admits(self, sequence: i64) -> bool {
        match self {
            Self::Newest => true,
            Self::Before(end) => sequence < end,
            Self::After(begin) => sequence > begin,
        }
    }

    /// Whether the oldest come first.
    #[must_use]
    pub fn is_ascending(self) -> bool {
        matches!(self, Self::After(_))
    }
}

/// A known device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its lasting identity.
    pub identity: Identity,
    /// idVendor
    pub vendor: u16,
    /// idProduct
    pub product: u16,
    /// iManufacturer
    pub manufacturer: Option<String>,
    /// iProduct
    pub name: Option<String>,
    /// iSerialNumber
    pub serial: Option<String>,
    /// The physical port it was in last.
    pub port: String,
    /// When it was first seen, in milliseconds since 1970; none where the clock was not set.
    pub first_ms: Option<i64>,
    /// When it was last seen coming, going or being there at a start.
    pub last_ms: Option<i64>,
    /// How often it was plugged in.
    pub plugs: u32,
}
