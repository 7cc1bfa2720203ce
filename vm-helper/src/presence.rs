//! What is known of the Pi's session, for `vm-helper status`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{
    failure::Error,
    lock::RUN_DIR,
    root::{Root, replace_file},
};

/// Whether the Pi can be heard, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// How it stands.
    pub state: PiState,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// The session's process.
    pub pid: u32,
}

/// How it stands with the Pi.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PiState {
    /// It speaks.
    Answers,
    /// Nothing is heard from it.
    Silent,
    /// It has closed its session, or its silence has.
    Gone,
}

fn path(root: &Root) -> std::path::PathBuf {
    root.path(&format!("{RUN_DIR}/pi"))
}

impl Presence {
    /// Write down a change. A later session's word stands against the end of an earlier one.
    pub fn record(root: &Root, state: PiState) -> Result<(), Error> {
        let pid = std::process::id();
        if state == PiState::Gone && Self::load(root).is_some_and(|known| known.pid != pid) {
            return Ok(());
        }
        let presence = Self {
            state,
            since: seconds_now(),
            pid,
        };
        // Plain data that always has a JSON form.
        replace_file(
            &path(root),
            &serde_json::to_string(&presence).unwrap_or_default(),
        )
    }

    /// What was written last; a session that was killed has gone.
    #[must_use]
    pub fn load(root: &Root) -> Option<Self> {
        let text = std::fs::read_to_string(path(root)).ok()?;
        let mut presence: Self = serde_json::from_str(&text).ok()?;
        if !root.path(&format!("/proc/{}", presence.pid)).exists() {
            presence.state = PiState::Gone;
        }
        Some(presence)
    }

    /// One sentence for people.
    #[must_use]
    pub fn sentence(&self) -> String {
        let ago = seconds_now().saturating_sub(self.since);
        match self.state {
            PiState::Answers => format!("its session has been open for {ago} s"),
            PiState::Silent => format!("it has not answered for {ago} s"),
            PiState::Gone => format!("its last session was opened or changed {ago} s ago"),
        }
    }
}

fn seconds_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs())
}
