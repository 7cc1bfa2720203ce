//! Test Connection: one check after the other, each shown as soon as it is done.
//!
//! - [`report`]: what was found so far
//! - `examine`: the checks
//! - `words`: what the helper's checks are called, and which version is older
//!
//! One examination of a VM runs at a time; whoever asks for a second one sees the first.

mod examine;
pub mod report;
mod words;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{runtime, sync::watch, time::timeout};

pub use report::{Finding, Report, State, Trust};

use super::{Config, Pairing};

/// Examinations at once.
const MOST_RUNNING: usize = 3;
/// Reports that are kept, running ones included.
const MOST_KEPT: usize = 8;
/// How long an examination may take in all. Each of its checks has a deadline of its own; together
/// they are shorter.
const DEADLINE: Duration = Duration::from_mins(2);

/// Shows the fingerprints of the VM's host keys, in a shell there.
pub const SHOW_FINGERPRINTS: &str =
    "for k in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -lf $k; done";

/// So many VMs are examined already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MOST_RUNNING} tests are running already; wait until one is done")]
pub struct TooMany;

/// Examines VMs. Cheap to clone.
#[derive(Clone)]
pub struct Diagnoses {
    config: Config,
    runtime: runtime::Handle,
    reports: Arc<Mutex<VecDeque<Arc<Report>>>>,
    news: watch::Sender<u64>,
}

impl Diagnoses {
    /// Works on the places of this configuration, on the current runtime.
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            runtime: runtime::Handle::current(),
            reports: Arc::default(),
            news: watch::Sender::new(0),
        }
    }

    /// Begins to examine a VM, unless that is being done already. The target must have passed
    /// [`conf::check`](super::conf::check).
    pub fn start(&self, target: Pairing) -> Result<(), TooMany> {
        let report = Report::new(target);
        {
            let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
            let running = reports.iter().filter(|report| !report.done);
            if running.clone().any(|other| other.target == report.target) {
                return Ok(());
            }
            if running.count() >= MOST_RUNNING {
                return Err(TooMany);
            }
            reports.retain(|other| other.target != report.target);
            reports.truncate(MOST_KEPT - 1);
            reports.push_front(Arc::new(report.clone()));
        }
        let this = self.clone();
        self.runtime.spawn(async move {
            let mut progress = Progress {
                report,
                diagnoses: this.clone(),
            };
            let examined = examine::examine(&this.config, &mut progress);
            let in_time = timeout(DEADLINE, examined).await.is_ok();
            progress.report.end(in_time);
            progress.publish();
        });
        self.tell();
        Ok(())
    }

    /// The latest report on a VM.
    #[must_use]
    pub fn latest(&self, target: &Pairing) -> Option<Arc<Report>> {
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports
            .iter()
            .find(|report| report.target == *target)
            .cloned()
    }

    /// Changes whenever a report does.
    #[must_use]
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn tell(&self) {
        self.news
            .send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// A report that is being written.
struct Progress {
    report: Report,
    diagnoses: Diagnoses,
}

impl Progress {
    /// A check begins.
    fn begin(&mut self, id: &str, title: &str) {
        self.report.findings.push(Finding::running(id, title));
        self.publish();
    }

    /// It is over.
    fn finish(&mut self, change: impl FnOnce(Finding) -> Finding) {
        if let Some(last) = self.report.findings.pop() {
            self.report.findings.push(change(last));
        }
        self.publish();
    }

    fn publish(&self) {
        let report = Arc::new(self.report.clone());
        {
            let mut reports = self
                .diagnoses
                .reports
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = reports
                .iter_mut()
                .find(|other| other.target == report.target)
            {
                *place = report;
            }
        }
        self.diagnoses.tell();
    }
}
