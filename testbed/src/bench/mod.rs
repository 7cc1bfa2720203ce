//! `make bench`: how fast the product is, side by side with the stock tools on the same two machines, and what it
//! costs.
//!
//! - [`figures`]: what was measured, as table and as file
//! - `rig`: the machines, and what is changed about them
//! - `marks`: the moments of an attachment, from the kernels' logs
//! - `latency`: plug to tty, unplug to its end; `classic` is one of its competitors
//! - `recovery`: boots and power cuts
//! - `bytes`: throughput and round trips
//! - `footprint`: memory, wake-ups, sizes
//! - `portal`: the dashboard with many readers, the history

mod bytes;
mod classic;
pub mod figures;
mod footprint;
mod latency;
mod marks;
mod portal;
mod recovery;
mod rig;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::machine::{self, Accel, Tty};
use crate::pair::{self, Options};
use crate::{place, redir};
pub use figures::Results;
use rig::Rig;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machines did not come up.
    #[error(transparent)]
    Pair(#[from] pair::Error),
    /// One of them did not do what it was told.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// A played device.
    #[error("failed to play a device")]
    Device(#[from] redir::Error),
    /// No such section.
    #[error(
        "failed to find a section named '{0}'; there are latency, recovery, bytes, footprint and portal"
    )]
    Section(String),
    /// What was to be counted is not there.
    #[error("failed to read {what} from '{text}'")]
    Read {
        /// The quantity.
        what: &'static str,
        /// Where it should have been.
        text: String,
    },
    /// Bytes did not come through.
    #[error("failed to pass bytes over {way}: {why}")]
    Bytes {
        /// Which way.
        way: &'static str,
        /// How it ended.
        why: String,
    },
    /// A file of this host.
    #[error("failed to {act} {path}")]
    File {
        /// Read or write.
        act: &'static str,
        /// Which.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A thread ended by a panic.
    #[error("failed to wait for a line: its thread panicked")]
    Panicked,
}

/// A part of the benchmark that can be run by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Plug to tty, unplug to its end.
    Latency,
    /// Boots and power cuts.
    Recovery,
    /// Throughput and round trips.
    Bytes,
    /// Memory, wake-ups, sizes.
    Footprint,
    /// The dashboard with many readers, the history; without the machines.
    Portal,
}

impl Section {
    /// In the order in which they are run.
    pub const ALL: [Self; 5] = [
        Self::Portal,
        Self::Footprint,
        Self::Latency,
        Self::Bytes,
        Self::Recovery,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Recovery => "recovery",
            Self::Bytes => "bytes",
            Self::Footprint => "footprint",
            Self::Portal => "portal",
        }
    }
}

impl FromStr for Section {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let mut all = Self::ALL.into_iter();
        all.find(|section| section.name() == name)
            .ok_or_else(|| Error::Section(name.to_owned()))
    }
}

/// Runs `sections`, writes their figures to `target/bench/results.json` and returns them. `quick` measures a few
/// times only, which shows that all works.
pub fn run(
    options: &Options,
    sections: &[Section],
    quick: bool,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Results, Error> {
    let begin = Instant::now();
    let mut results = Results::default();
    // Before the machines, which would be in its way.
    if sections.contains(&Section::Portal) {
        portal::measure(quick, progress, &mut results)?;
    }
    let mut kernel = None;
    if sections.iter().any(|section| *section != Section::Portal) {
        let rig = Rig::start(options, progress)?;
        for section in Section::ALL {
            if !sections.contains(&section) {
                continue;
            }
            let results = &mut results;
            match section {
                Section::Portal => {}
                Section::Latency => latency::measure(&rig, if quick { 3 } else { 20 }, results)?,
                Section::Recovery => recovery::measure(&rig, if quick { 1 } else { 3 }, results)?,
                Section::Bytes => bytes::measure(&rig, quick, results)?,
                Section::Footprint => footprint::measure(&rig, options, quick, results)?,
            }
        }
        kernel = Some(rig.pi().check("uname -r")?);
    }
    let accel = match options.accel {
        Accel::Tcg => "tcg",
        Accel::Kvm => "kvm",
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let about = serde_json::json!({
        "unix_time_s": now.unwrap_or_default().as_secs(),
        "took_s": begin.elapsed().as_secs(),
        "accel": accel,
        "host_cpus": thread::available_parallelism().map_or(0, usize::from),
        "kernel": kernel,
        "quick": quick,
    });
    write(&place::bench(), &results.json(&about))?;
    Ok(results)
}

fn write(path: &Path, json: &serde_json::Value) -> Result<(), Error> {
    let failed = |act, path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::File { act, path, source }
    };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed("create", dir))?;
    }
    fs::write(path, format!("{json:#}\n")).map_err(failed("write", path))
}
