//! The board's watchdog: the box starts anew when the manager's loop does not answer any more.
//!
//! How long the hardware waits is the kernel's setting (`bcm2835_wdt.heartbeat` on the image's
//! command line, 10 s), since setting it from here would take an ioctl. With [`SILENT`] and [`FEED`]
//! a hang ends in a restart after at most 20 s.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};

/// The device.
pub const PATH: &str = "/dev/watchdog";
/// What the kernel says of it.
const TIMEOUT: &str = "/sys/class/watchdog/watchdog0/timeout";
/// How often it is fed.
const FEED: Duration = Duration::from_secs(2);
/// A loop that was silent for longer is not fed for. Its pulse beats every 5 s.
const SILENT: Duration = Duration::from_secs(8);
/// Closing the device after this byte stops it (Documentation/watchdog/watchdog-api.rst, "magic
/// close"). Closed without, as by a crash, it runs on.
const MAGIC: &[u8] = b"V";

/// A watchdog that runs.
#[derive(Debug)]
pub struct Watchdog {
    device: File,
    path: PathBuf,
}

impl Watchdog {
    /// Start it. None where there is none, or where another program has it.
    #[must_use]
    pub fn start(path: &Path) -> Option<Self> {
        match OpenOptions::new().write(true).open(path) {
            Ok(device) => {
                let seconds = fs::read_to_string(TIMEOUT).unwrap_or_default();
                tracing::info!(seconds = seconds.trim(), "watchdog started");
                Some(Self {
                    device,
                    path: path.to_owned(),
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::info!("no watchdog on this machine");
                None
            }
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "no watchdog");
                None
            }
        }
    }

    /// Feed it for as long as the loop was not silent for too long. `silent_for` says for how long
    /// it is. Never ends.
    pub async fn feed(&mut self, silent_for: impl Fn() -> Duration) {
        let mut feeding = interval(FEED);
        feeding.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = false;
        loop {
            feeding.tick().await;
            let silent = silent_for();
            if silent <= SILENT {
                said = false;
                // The driver takes it at once.
                if let Err(error) = self.device.write_all(b"\0") {
                    tracing::error!(%error, path = %self.path.display(), "failed to feed the watchdog");
                }
            } else if !said {
                said = true;
                tracing::error!(
                    seconds = silent.as_secs(),
                    "the manager hangs; not feeding the watchdog"
                );
            }
        }
    }

    /// Stop it: this end was planned.
    pub fn stop(mut self) {
        if let Err(error) = self.device.write_all(MAGIC) {
            tracing::warn!(%error, path = %self.path.display(), "failed to stop the watchdog");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use tokio::time::sleep;

    use super::*;

    fn fed(path: &Path) -> usize {
        fs::read(path).unwrap().len()
    }

    #[tokio::test(start_paused = true)]
    async fn is_fed_only_while_the_loop_answers_and_stopped_by_a_planned_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watchdog");
        fs::write(&path, "").unwrap();
        let mut watchdog = Watchdog::start(&path).unwrap();
        let silent = Arc::new(AtomicU64::new(0));
        let silent_for = || Duration::from_secs(silent.load(Ordering::Relaxed));
        {
            let feeding = watchdog.feed(silent_for);
            tokio::pin!(feeding);
            let mut pass = async |seconds| {
                tokio::select! {
                    () = &mut feeding => unreachable!(),
                    () = sleep(Duration::from_secs(seconds)) => {}
                }
            };
            pass(9).await;
            let before = fed(&path);
            assert!((4..=5).contains(&before), "{before}");
            silent.store(9, Ordering::Relaxed);
            pass(60).await;
            assert_eq!(fed(&path), before);
            silent.store(5, Ordering::Relaxed);
            pass(3).await;
            assert!(fed(&path) > before);
        }
        watchdog.stop();
        assert!(fs::read(&path).unwrap().ends_with(MAGIC));
    }

    #[test]
    fn a_machine_without_one_is_fine() {
        assert!(Watchdog::start(Path::new("/nonexistent/watchdog")).is_none());
    }
}
