//! When something happened.
//!
//! A Pi has no clock of its own: until a time server answers, the image starts it at the latest time that it knew, which
//! looks like a time and is none. There the wall clock counts as set once the image's time service has said so; elsewhere
//! once it shows a time that this program could have been run at. Until then the time since boot is what orders events
//! and lets their time be worked out later.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// No clock that is set shows less: 1 July 2026, before the first release, in milliseconds since 1970.
pub const EARLIEST_MS: i64 = 1_782_864_000_000;

/// The image starts the clock at this file's time, or a later one that it knew.
const GUESSED: &str = "/etc/build-time";
/// Its time service makes this file when a time server has answered.
const ANSWERED: &str = "/run/clock-set";

/// How far a wall-clock time can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The clock was not set yet: the time is none.
    Unset,
    /// The clock was set.
    Set,
    /// It was not set then; the time was worked out when it was, in the same boot.
    WorkedOut,
}

impl Clock {
    /// As it is stored.
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Unset => 0,
            Self::Set => 1,
            Self::WorkedOut => 2,
        }
    }

    pub(super) fn from_number(number: i64) -> Self {
        match number {
            1 => Self::Set,
            2 => Self::WorkedOut,
            _ => Self::Unset,
        }
    }
}

/// A moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Since boot, suspends included, in milliseconds.
    pub mono_ms: i64,
    /// The wall clock, in milliseconds since 1970.
    pub unix_ms: i64,
    /// Whether the wall clock was set.
    pub set: bool,
}

impl Stamp {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        let mono = clock_gettime(ClockId::Boottime);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix_ms = millis(unix.unwrap_or_default());
        let guessed = Path::new(GUESSED).exists() && !Path::new(ANSWERED).exists();
        Self {
            mono_ms: mono.tv_sec * 1000 + mono.tv_nsec / 1_000_000,
            unix_ms,
            set: unix_ms >= EARLIEST_MS && !guessed,
        }
    }

    /// Whether the wall clock was set.
    #[must_use]
    pub fn is_set(self) -> bool {
        self.set
    }

    /// The wall-clock time of another moment of the same boot.
    pub(super) fn unix_at(self, mono_ms: i64) -> i64 {
        self.unix_ms - (self.mono_ms - mono_ms)
    }
}

/// Tells the time.
pub type Now = Arc<dyn Fn() -> Stamp + Send + Sync>;

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
