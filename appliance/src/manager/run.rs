//! The loop that hears the inputs and has the orders carried out.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use protocol::{
    BusId, DevId,
    line::{Answer, Request},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    input::{Command, Effect, Input, Remembered},
    kept::Keep,
    state::State,
    step::step,
    view::{DeviceState, DeviceView, SessionView, View},
};
use crate::{
    history::{Event, Sighting},
    usb::Change,
    usbipd::{self, Exports},
    vm,
};

/// The loop runs at least this often, so that its silence means that it hangs.
const PULSE: Duration = Duration::from_secs(5);
/// A loop that did not run for this long hangs.
const HANGS: Duration = Duration::from_secs(15);
/// How long switching a port off and on may take: a few transfers to its hub, which the kernel gives
/// up after 5 s each, and the pause in between.
const POWER_LIMIT: Duration = Duration::from_secs(30);
/// What happened is shown this much later, and what follows with it: first things first, while a
/// device is on its way to the VM. What a person asked for is shown at once.
const SHOW: Duration = Duration::from_millis(20);
/// How much later a device is bound of which the VM was told: both take a small processor some
/// milliseconds, and the VM's kernel leaves it alone for 100 ms (see `usbipd::Exports::fresh`).
const HEAD_START: Duration = Duration::from_millis(20);
const COMMAND_QUEUE: usize = 32;
/// Results of orders; more than there can be devices on a bus.
const RESULT_QUEUE: usize = 256;

/// Binding and unbinding. The methods block, and say in a sentence what went wrong.
pub trait UsbHost: Send + Sync + 'static {
    /// Have a [`Change::Snapshot`] sent. Does not block.
    fn rescan(&self);
    /// Whether a [`Change::Coming`] is of use from now on. Does not block.
    fn announce(&self, coming: bool);
    /// Give a device to usbip-host.
    fn bind(&self, busid: &BusId, devid: DevId) -> Result<(), String>;
    /// Take it back and give it anew.
    fn rebind(&self, busid: &BusId, devid: DevId) -> Result<(), String>;
    /// Take it back.
    fn unbind(&self, busid: &BusId, devid: DevId) -> Result<(), String>;
    /// Switch the device's port off and on again. Whatever happens, it is left on.
    fn power_cycle(&self, busid: &BusId, devid: DevId) -> Result<(), String>;
    /// Free what usbip-host keeps of unplugged devices.
    fn sweep(&self);
}

/// The sessions of imported devices.
pub trait Sessions: Send + Sync + 'static {
    /// Let the VM have a new device before it asks, if it waits for one. Does not block.
    fn give(&self, busid: &BusId);
    /// Who waited will not hear what it is given. Does not block.
    fn end_waiting(&self);
    /// End one; a success when the device is free.
    fn end(&self, busid: BusId, devid: DevId) -> impl Future<Output = Result<(), String>> + Send;
}

/// The link to the VM.
pub trait VmLink: Send + 'static {
    /// Send a request without waiting. What is taken is answered by one [`vm::Event::Reply`]; what
    /// is not taken is answered by the error.
    fn send(&self, request: Request) -> Result<(), Box<Answer>>;
    /// Try for a session at once.
    fn kick(&self);
}

/// What is kept across restarts.
pub trait Memory: Send + 'static {
    /// Keep this. Does not block.
    fn remember(&self, remembered: Remembered);
    /// Add this to the history. Does not block.
    fn append(&self, event: Event);
    /// Keep that this device was seen. Does not block.
    fn saw(&self, sighting: Sighting);
    /// Keep or forget a name, rule or hold. Does not block.
    fn keep(&self, keep: Keep);
}

/// Where the loop hears from.
#[derive(Debug)]
pub struct Inputs {
    /// The bus.
    pub usb: mpsc::Receiver<Change>,
    /// Port 3240.
    pub usbipd: mpsc::Receiver<usbipd::Event>,
    /// The link.
    pub vm: mpsc::Receiver<vm::Event>,
    /// The grace time.
    pub grace: watch::Receiver<Duration>,
}

/// For those who watch the manager and tell it what people want. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    /// What the manager knows, at any time.
    pub view: watch::Receiver<Arc<View>>,
    /// What people want.
    pub commands: mpsc::Sender<Command>,
    pulse: Pulse,
}

impl Handle {
    /// Whether the loop runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.pulse.age() < HANGS
    }

    /// How long ago the loop ran; it does so every 5 s at least.
    #[must_use]
    pub fn silent_for(&self) -> Duration {
        self.pulse.age()
    }

    /// When the clock began to which the view's times refer.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.pulse.started
    }
}

/// When the loop ran last.
#[derive(Debug, Clone)]
struct Pulse {
    started: Instant,
    millis: Arc<AtomicU64>,
}

impl Pulse {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn beat(&self) {
        let millis = u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        self.now()
            .saturating_sub(Duration::from_millis(self.millis.load(Ordering::Relaxed)))
    }
}

/// The manager with everything that carries out its orders.
pub struct Manager<U, S, L, M> {
    state: State,
    usb: Arc<U>,
    sessions: Arc<S>,
    link: L,
    memory: M,
    exports: watch::Sender<Exports>,
    view: watch::Sender<Arc<View>>,
    commands: mpsc::Receiver<Command>,
    results: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    /// Inputs that our own orders gave rise to at once.
    echoes: VecDeque<Input>,
    /// When what has changed is to be shown.
    show_at: Option<Duration>,
    pulse: Pulse,
}

impl<U: UsbHost, S: Sessions, L: VmLink, M: Memory> Manager<U, S, L, M> {
    /// A manager that knows nothing yet. `exports` reaches the USB/IP server.
    #[must_use]
    pub fn new(
        (usb, sessions, link, memory): (U, S, L, M),
        (recalled, kept): (Vec<Remembered>, Vec<Keep>),
        exports: watch::Sender<Exports>,
    ) -> (Self, Handle) {
        let state = State::new(exports.borrow().grace);
        let (command_sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let (view, view_receiver) = watch::channel(Arc::new(state.view()));
        let pulse = Pulse {
            started: Instant::now(),
            millis: Arc::default(),
        };
        let handle = Handle {
            view: view_receiver,
            commands: command_sender,
            pulse: pulse.clone(),
        };
        let manager = Self {
            state,
            usb: Arc::new(usb),
            sessions: Arc::new(sessions),
            link,
            memory,
            exports,
            view,
            commands,
            results: mpsc::channel(RESULT_QUEUE),
            echoes: VecDeque::from([Input::Recalled(recalled), Input::Kept(kept)]),
            show_at: None,
            pulse,
        };
        (manager, handle)
    }

    /// Run until one of the inputs ends, which is a part of the appliance that ended.
    pub async fn run(mut self, mut inputs: Inputs) {
        while let Some(input) = self.next(&mut inputs).await {
            self.pulse.beat();
            let now = self.pulse.now();
            let wait = match input {
                Input::Tick | Input::Command(_) => Duration::ZERO,
                _ => SHOW,
            };
            self.take(input);
            let due = (now + wait).min(self.show_at.unwrap_or(Duration::MAX));
            self.show_at = Some(due).filter(|due| *due > now);
            if self.show_at.is_none() {
                self.show();
            }
        }
    }

    async fn next(&mut self, inputs: &mut Inputs) -> Option<Input> {
        if let Some(input) = self.echoes.pop_front() {
            return Some(input);
        }
        let wake = self.state.next_wake().min(self.pulse.now() + PULSE);
        let wake = self.show_at.map_or(wake, |due| due.min(wake));
        // A moment later, so that what is due is due: timers count whole milliseconds.
        let wake = self.pulse.started + wake + Duration::from_millis(1);
        tokio::select! {
            // In order of what people wait for most.
            biased;
            change = inputs.usb.recv() => change.map(Input::Usb),
            event = inputs.usbipd.recv() => event.map(Input::Usbipd),
            event = inputs.vm.recv() => event.map(Input::Vm),
            result = self.results.1.recv() => result,
            Some(command) = self.commands.recv() => Some(Input::Command(command)),
            Ok(()) = inputs.grace.changed() => {
                Some(Input::Grace(*inputs.grace.borrow_and_update()))
            }
            () = sleep_until(wake) => Some(Input::Tick),
        }
    }

    fn take(&mut self, input: Input) {
        if !matches!(input, Input::Tick) {
            tracing::debug!(?input, "heard");
        }
        if let Input::Vm(vm::Event::Down(_) | vm::Event::Paired(_)) = &input {
            self.sessions.end_waiting();
        }
        let state = std::mem::take(&mut self.state);
        let (state, effects) = step(state, self.pulse.now(), input);
        self.state = state;
        self.usb.announce(self.state.takes_coming());
        // Before any order, since the VM's import may follow it within a millisecond.
        let exports = self.state.exports();
        self.exports.send_if_modified(|published| {
            let changed = *published != exports;
            if changed {
                *published = exports;
            }
            changed
        });
        for effect in effects {
            tracing::debug!(?effect, "ordered");
            self.carry_out(effect);
        }
    }

    fn show(&self) {
        let view = self.state.view();
        self.view.send_if_modified(|published| {
            let changed = **published != view;
            if changed {
                log_changes(published, &view);
                *published = Arc::new(view);
            }
            changed
        });
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Rescan => self.usb.rescan(),
            Effect::Sweep => {
                let usb = Arc::clone(&self.usb);
                tokio::task::spawn_blocking(move || usb.sweep());
            }
            Effect::Bind(busid, devid) => {
                let told = self.state.told_at(&busid, devid);
                let due = told.map_or(Duration::ZERO, |told| told + HEAD_START);
                let head_start = due.saturating_sub(self.pulse.now());
                let bind = self.act(busid, devid, U::bind, Input::Bound);
                tokio::spawn(async move {
                    sleep(head_start).await;
                    tokio::task::spawn_blocking(bind);
                });
            }
            Effect::Rebind(busid, devid) => {
                tokio::task::spawn_blocking(self.act(busid, devid, U::rebind, Input::Bound));
            }
            Effect::Unbind(busid, devid) => {
                tokio::task::spawn_blocking(self.act(busid, devid, U::unbind, Input::Unbound));
            }
            Effect::EndSession(busid, devid) => {
                let (sessions, results) = (Arc::clone(&self.sessions), self.results.0.clone());
                tokio::spawn(async move {
                    let result = sessions.end(busid.clone(), devid).await;
                    // Nobody hears it only when the appliance ends.
                    let _ = results
                        .send(Input::SessionEnded(busid, devid, result))
                        .await;
                });
            }
            Effect::PowerCycle(busid, devid) => self.power_cycle(busid, devid),
            Effect::Kick => self.link.kick(),
            Effect::Send(request) => {
                if let Request::Connect(busid, Some(_)) = &request {
                    self.sessions.give(busid);
                }
                if let Err(answer) = self.link.send(request.clone()) {
                    let event = vm::Event::Reply {
                        request,
                        answer: *answer,
                    };
                    self.echoes.push_back(Input::Vm(event));
                }
            }
            Effect::Remember(remembered) => self.memory.remember(remembered),
            Effect::Append(event) => self.memory.append(event),
            Effect::Saw(sighting) => self.memory.saw(sighting),
            Effect::Keep(keep) => self.memory.keep(keep),
        }
    }

    fn power_cycle(&self, busid: BusId, devid: DevId) {
        let (usb, results) = (Arc::clone(&self.usb), self.results.0.clone());
        tokio::spawn(async move {
            let port = busid.clone();
            let work = tokio::task::spawn_blocking(move || usb.power_cycle(&port, devid));
            let result = match timeout(POWER_LIMIT, work).await {
                Ok(Ok(result)) => result,
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => {
                    let seconds = POWER_LIMIT.as_secs();
                    Err(format!("the hub did not answer within {seconds} s"))
                }
            };
            // Nobody hears it only when the appliance ends.
            let _ = results.send(Input::PowerCycled(busid, devid, result)).await;
        });
    }

    fn act(
        &self,
        busid: BusId,
        devid: DevId,
        act: impl FnOnce(&U, &BusId, DevId) -> Result<(), String> + Send + 'static,
        done: fn(BusId, DevId, Result<(), String>) -> Input,
    ) -> impl FnOnce() + Send + 'static {
        let (usb, results) = (Arc::clone(&self.usb), self.results.0.clone());
        move || {
            let result = act(&usb, &busid, devid);
            // Nobody hears it only when the appliance ends.
            let _ = results.blocking_send(done(busid, devid, result));
        }
    }
}

/// One line in the log for what people would want to read there.
fn log_changes(before: &View, after: &View) {
    if before.session != after.session {
        match &after.session {
            SessionView::NotPaired => tracing::info!("not paired"),
            SessionView::Down { failure: None } => tracing::info!("looking for the VM"),
            SessionView::Down {
                failure: Some(failure),
            } => {
                tracing::warn!(kind = ?failure.kind, "no session: {}", failure.message);
            }
            SessionView::Up { hello } => {
                tracing::info!(
                    vm = hello.host_name,
                    helper = hello.version,
                    "session is up"
                );
            }
        }
    }
    let old: BTreeMap<_, _> = before.devices.iter().map(|d| (&d.facts.busid, d)).collect();
    for device in &after.devices {
        let facts = &device.facts;
        let known = old
            .get(&facts.busid)
            .filter(|d| d.facts.devid == facts.devid);
        let same = |known: &&&DeviceView| match (&known.state, &device.state) {
            // The links that udev made are no news.
            (
                DeviceState::Attached {
                    attachment: Some(_),
                    silent: before,
                },
                DeviceState::Attached {
                    attachment: Some(_),
                    silent: now,
                },
            ) => before == now,
            (before, now) => before == now,
        };
        if known.as_ref().is_some_and(same) {
            continue;
        }
        let ids = format!("{:04x}:{:04x}", facts.vendor, facts.product);
        match &device.state {
            DeviceState::Skipped { why } => {
                tracing::info!(busid = %facts.busid, ids, "left alone: {why}");
            }
            DeviceState::Bound { held } => tracing::info!(busid = %facts.busid, ids, held, "bound"),
            DeviceState::Cycling => {
                tracing::info!(busid = %facts.busid, ids, "port switched off and on");
            }
            DeviceState::Missing => {
                tracing::warn!(busid = %facts.busid, ids, "did not come back");
            }
            DeviceState::Attaching => tracing::info!(busid = %facts.busid, ids, "attaching"),
            DeviceState::Attached { attachment, silent } => {
                let ttys: Vec<&str> = attachment
                    .iter()
                    .flat_map(|attachment| &attachment.ttys)
                    .map(|tty| tty.node.as_str())
                    .collect();
                tracing::info!(busid = %facts.busid, ids, ?ttys, silent, ms = device.plug_to_tty_ms, "attached");
            }
            DeviceState::Failed { message, .. } => {
                tracing::warn!(busid = %facts.busid, ids, "failed: {message}");
            }
        }
    }
    for device in &before.devices {
        if !after
            .devices
            .iter()
            .any(|d| d.facts.busid == device.facts.busid)
        {
            tracing::info!(busid = %device.facts.busid, "unplugged");
        }
    }
}
