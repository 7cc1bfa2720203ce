//! What the portal needs of the appliance.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{join::Joins, packages::Packages};
use crate::{
    access::Access,
    history::Store,
    manager::{Command, View},
    system::KernelLog,
    vm::Pairer,
};

/// What the portal needs of the appliance. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// What the manager knows.
    pub view: watch::Receiver<Arc<View>>,
    /// Where people's wishes go.
    pub commands: mpsc::Sender<Command>,
    /// Makes and ends the pairing.
    pub pairer: Pairer,
    /// Who may use the portal.
    pub access: Access,
    /// When the clock began to which the view's times refer.
    pub started: Instant,
    /// Whether the manager's loop answers.
    pub alive: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Sentences about what is wrong with the appliance itself: settings, storage.
    pub notices: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// What happened, and where people's doings are recorded.
    pub history: Store,
    /// The box's log.
    pub log: KernelLog,
    /// Host names under which the portal may be called, beside addresses, `localhost`, `usbip-pi`
    /// and everything in `.local`.
    pub names: Vec<String>,
    /// The VM's packages.
    pub packages: Packages,
    /// The line that pairs a VM, if somebody made one.
    pub joins: Joins,
}

impl Context {
    /// The time on the view's clock, in milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
