//! Power cuts: how soon the other side knows, and how soon after its return everything is attached again.

use std::thread;
use std::time::{Duration, Instant};

use super::Error;
use super::figures::{Results, Table, Target};
use super::rig::{DEVICES, Fast, Program, Rig, SESSION_UP};
use crate::machine::{Clock, Machine};

/// Under TCG on a busy host a boot takes 30 s, and logging in 4 s.
const LIMIT: Duration = Duration::from_mins(4);
/// The helper's word on the Pi, and how it reads when the Pi is missed.
const MISSED: &str = "until grep -qE '\"(silent|gone)\"' /run/usbip-vm/pi; do sleep 0.1; done";
/// The machines settle after everything is attached.
const REST: Duration = Duration::from_secs(3);

/// Seconds, one of each round.
#[derive(Default)]
struct Boots {
    known: Vec<f64>,
    ready: Vec<f64>,
    login: Vec<f64>,
    greeting: Vec<f64>,
    first: Vec<f64>,
    per_device: Vec<f64>,
    all: Vec<f64>,
}

/// The moments of a return.
struct Return {
    /// The returned machine has its address.
    network: Instant,
    /// The VM's SSH server listens, or the Pi's appliance runs.
    ready: Instant,
    /// The Pi has logged in to the VM.
    login: Instant,
    /// The two have greeted each other.
    session: Instant,
    first: Instant,
    last: Instant,
}

impl Boots {
    fn add(&mut self, moments: &Return) {
        let since = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64();
        self.ready.push(since(moments.network, moments.ready));
        self.login
            .push(since(moments.ready.max(moments.network), moments.login));
        self.greeting.push(since(moments.login, moments.session));
        // usb-boot-attach does not wait for the session, so this may be nothing.
        self.first.push(since(moments.session, moments.first));
        self.per_device
            .push(since(moments.first, moments.last) / f64::from(DEVICES - 1));
        self.all.push(since(moments.network, moments.last));
    }

    fn report(self, who: &str, key: &str, ready: &str, results: &mut Results) {
        let mut table = Table::single(&format!("Power cut of the {who}, s"));
        let mut row = |label: &str, part: &str, values| {
            table.row(label, &format!("{key}.{part}_s"), values);
        };
        let known = self.known.iter().copied().fold(0.0, f64::max);
        row("cut to known on the other side", "cut_to_known", self.known);
        row(ready, "network_to_ready", self.ready);
        row("then to the ssh login", "login", self.login);
        row("then to the greeting", "greeting", self.greeting);
        row("then to the first tty", "first_tty", self.first);
        row("then per device", "per_device", self.per_device);
        row("NETWORK TO ALL EIGHT TTYS", "network_to_all", self.all);
        results.tables.push(table);
        results.targets.push(Target::at_most(
            &format!("{key}.cut_to_known_s"),
            &format!("power cut of the {who} to known on the other side, worst, s"),
            known,
            5.0,
        ));
    }
}

/// Cuts the power of both, `rounds` times.
pub(super) fn measure(rig: &Rig<'_>, rounds: usize, results: &mut Results) -> Result<(), Error> {
    rig.run(Program::Appliance, Fast::DEFAULT)?;
    let devices = rig.plug_eight()?;
    let (mut vm, mut pi) = (Boots::default(), Boots::default());
    for round in 1..=rounds {
        rig.say(&format!("power cut of the VM, {round} of {rounds}"));
        thread::sleep(REST);
        vm.known.push(cut_vm(rig)?);
        vm.add(&return_vm(rig)?);
        rig.say(&format!("power cut of the Pi, {round} of {rounds}"));
        thread::sleep(REST);
        pi.known.push(cut_pi(rig)?);
        pi.add(&return_pi(rig)?);
    }
    vm.report("VM", "vm_cut", "its network to its ssh server", results);
    pi.report("Pi", "pi_cut", "its network to its appliance", results);
    for number in devices {
        rig.pi().unplug(number)?;
    }
    Ok(())
}

fn cut_vm(rig: &Rig<'_>) -> Result<f64, Error> {
    let clock = rig.pi().clock()?;
    let cut = Instant::now();
    rig.vm().kill();
    let known = rig
        .pi()
        .await_log(&clock, cut, ("no session: ", 1), LIMIT)?;
    Ok(known.saturating_duration_since(cut).as_secs_f64())
}

fn return_vm(rig: &Rig<'_>) -> Result<Return, Error> {
    let (pi, vm) = (rig.pi(), rig.vm());
    let pi_clock = pi.clock()?;
    let begin = Instant::now();
    vm.power_on()?;
    vm.wait_until_within("true", LIMIT)?;
    let clock = vm.clock()?;
    let last = vm.await_log(
        &clock,
        begin,
        ("now attached to ttyUSB", DEVICES.into()),
        LIMIT,
    )?;
    let first = vm.await_log(&clock, begin, ("now attached to ttyUSB", 1), LIMIT)?;
    let (login, session) = session(pi, &pi_clock, begin)?;
    let network = journal(vm, &clock, "systemd-networkd", "eth0: Gained carrier")?;
    let ready = journal(vm, &clock, "ssh", "Server listening on")?;
    Ok(Return {
        network,
        ready,
        login,
        session,
        first,
        last,
    })
}

fn cut_pi(rig: &Rig<'_>) -> Result<f64, Error> {
    let cut = Instant::now();
    rig.pi().kill();
    rig.vm().check_within(MISSED, LIMIT)?;
    Ok(cut.elapsed().as_secs_f64())
}

fn return_pi(rig: &Rig<'_>) -> Result<Return, Error> {
    let (pi, vm) = (rig.pi(), rig.vm());
    let vm_clock = vm.clock()?;
    let begin = Instant::now();
    pi.power_on()?;
    let last = vm.await_log(
        &vm_clock,
        begin,
        ("now attached to ttyUSB", DEVICES.into()),
        LIMIT,
    )?;
    let first = vm.await_log(&vm_clock, begin, ("now attached to ttyUSB", 1), LIMIT)?;
    let clock = pi.clock()?;
    let at = |text| pi.await_log(&clock, begin, (text, 1), LIMIT);
    let network = at("network: eth0 has its address")?;
    let ready = at("appliance started")?;
    let (login, session) = session(pi, &clock, begin)?;
    Ok(Return {
        network,
        ready,
        login,
        session,
        first,
        last,
    })
}

/// When the Pi had logged in, and when both had greeted each other.
fn session(pi: &Machine, clock: &Clock, since: Instant) -> Result<(Instant, Instant), Error> {
    let login = pi.await_log(clock, since, ("session with the VM", 1), LIMIT)?;
    let session = pi.await_log(clock, since, (SESSION_UP, 1), LIMIT)?;
    Ok((login, session))
}

/// When a unit of the VM first wrote `text` since the start, by the clock of the kernel's log.
fn journal(vm: &Machine, clock: &Clock, unit: &str, text: &str) -> Result<Instant, Error> {
    let line = vm.wait_until(&format!(
        "journalctl -b -q --no-pager -o short-monotonic -u {unit} | grep -m 1 -F '{text}'"
    ))?;
    let seconds = line
        .trim_start_matches(['[', ' '])
        .split(']')
        .next()
        .and_then(|seconds| seconds.trim().parse().ok());
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .map(|since_boot| clock.zero + since_boot)
        .ok_or(Error::Read {
            what: "a time",
            text: line,
        })
}
