//! From the plug to the tty on the VM, and from the unplug to its end.

use std::thread;
use std::time::{Duration, Instant};

use super::figures::{Figure, Results, Row, Table, Target};
use super::marks::{Mark, Marks};
use super::rig::{Fast, Program, Rig};
use super::{Error, classic};
use crate::machine::{Clock, Role};
use crate::usb::What;

/// The Pi's port that the device is plugged into.
const PORT: &str = "1";
const BUSID: &str = "1-1";
/// The classic pipeline takes 5 to 10 s under TCG.
const LIMIT: Duration = Duration::from_mins(1);
/// The wait for the kernel's log is set up before the plug.
const ARMED: Duration = Duration::from_millis(200);

/// What brings the device to the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pipeline {
    /// The appliance and the helper.
    Ours(Program, Fast),
    /// Udev, script, ssh, stock tools.
    Classic,
    /// The kernels alone, with an open channel.
    Floor,
}

/// One of the competitors.
struct Entry {
    pipeline: Pipeline,
    /// In the results' file.
    key: &'static str,
    /// Above its column.
    column: &'static str,
    rounds: Vec<Marks>,
}

/// In the order in which they take their turns. The traced one shows where our push ends and our import begins.
fn entries() -> Vec<Entry> {
    let entry = |key, column, pipeline| Entry {
        pipeline,
        key,
        column,
        rounds: Vec::new(),
    };
    let ours = |program, vm, pi| Pipeline::Ours(program, Fast { vm, pi });
    vec![
        entry("floor", "floor", Pipeline::Floor),
        entry("ours", "ours (a)", ours(Program::Appliance, true, false)),
        entry(
            "ours_pi_fast",
            "ours (b)",
            ours(Program::Appliance, true, true),
        ),
        entry(
            "ours_plain",
            "ours (c)",
            ours(Program::Appliance, false, false),
        ),
        entry(
            "ours_traced",
            "ours traced",
            ours(Program::Traced, true, false),
        ),
        entry("classic", "classic", Pipeline::Classic),
    ]
}

const PARTS: [(&str, &str, Mark, Mark); 11] = [
    (
        "pi_settle",
        "plug to the Pi's new device",
        Mark::Plug,
        Mark::PiNew,
    ),
    (
        "pi_enumeration",
        "Pi's enumeration",
        Mark::PiNew,
        Mark::PiFound,
    ),
    ("notice", "notice", Mark::PiFound, Mark::Noticed),
    ("bind", "bind", Mark::Noticed, Mark::Bound),
    (
        "notice_and_bind",
        "notice and bind",
        Mark::PiFound,
        Mark::Bound,
    ),
    ("push", "push to the VM", Mark::Bound, Mark::Told),
    (
        "import",
        "import, to vhci's attach",
        Mark::Told,
        Mark::Attached,
    ),
    (
        "push_and_import",
        "push and import",
        Mark::Bound,
        Mark::Attached,
    ),
    (
        "vm_enumeration",
        "VM's enumeration",
        Mark::Attached,
        Mark::VmFound,
    ),
    ("tty", "driver, to the tty", Mark::VmFound, Mark::Tty),
    ("total", "PLUG TO TTY", Mark::Plug, Mark::Tty),
];

/// Measures all pipelines, `rounds` of each, in turns so that a change of the host's speed strikes them all.
pub(super) fn measure(rig: &Rig<'_>, rounds: usize, results: &mut Results) -> Result<(), Error> {
    let mut entries = entries();
    let turns = if rounds > 4 { 2 } else { 1 };
    for turn in 0..turns {
        for entry in &mut entries {
            let wanted = match entry.pipeline {
                // For its parts alone.
                Pipeline::Ours(Program::Traced, _) => rounds.div_ceil(4),
                _ => rounds,
            };
            let wanted = wanted * (turn + 1) / turns - entry.rounds.len();
            rig.say(&format!("plug to tty, {}: {wanted} rounds", entry.column));
            prepare(rig, entry.pipeline)?;
            let clocks = rig.clocks()?;
            // The first finds cold caches.
            for index in 0..=wanted {
                let marks = round(rig, &clocks)?;
                if index > 0 {
                    entry.rounds.push(marks);
                }
            }
            clear(rig, entry.pipeline)?;
        }
    }
    report(&entries, results);
    Ok(())
}

fn prepare(rig: &Rig<'_>, pipeline: Pipeline) -> Result<(), Error> {
    match pipeline {
        Pipeline::Ours(program, fast) => rig.run(program, fast),
        Pipeline::Classic => {
            rig.run(Program::Nothing, Fast::NONE)?;
            classic::start(rig)
        }
        Pipeline::Floor => {
            rig.run(Program::Nothing, Fast::NONE)?;
            rig.pi()
                .start("exec testbed-agent floor-pi", Some("/run/bench/floor.log"))?;
            // Port 3241 in hexadecimal.
            rig.pi().wait_until("grep -q ':0CA9 ' /proc/net/tcp")?;
            let pi = Role::Pi.address();
            rig.vm().start(
                &format!("exec testbed-agent floor-vm {pi}"),
                Some("/run/floor.log"),
            )?;
            rig.pi()
                .wait_until("grep -q ':0CA9 [0-9A-F:]* 01 ' /proc/net/tcp")?;
            Ok(())
        }
    }
}

fn clear(rig: &Rig<'_>, pipeline: Pipeline) -> Result<(), Error> {
    match pipeline {
        Pipeline::Ours(..) => Ok(()),
        Pipeline::Classic => classic::stop(rig),
        Pipeline::Floor => {
            // The agent itself has the same name, but no arguments.
            let end = "for dir in /proc/[0-9]*; do \
                if tr '\\0' ' ' <$dir/cmdline 2>/dev/null | grep -q '^testbed-agent floor-'; then \
                kill ${dir#/proc/}; fi; done";
            rig.vm().check(end)?;
            rig.pi().check(end)?;
            Ok(())
        }
    }
}

/// Plugs, waits for the tty, unplugs, waits for its end.
fn round(rig: &Rig<'_>, (pi_clock, vm_clock): &(Clock, Clock)) -> Result<Marks, Error> {
    let (pi, vm) = (rig.pi(), rig.vm());
    let begin = Instant::now();
    let mut marks = Marks::default();
    let number = watched(rig, vm_clock, "now attached to ttyUSB", || {
        marks.put(Mark::Plug, Instant::now());
        Ok(pi.plug(What::QemuSerial, Some(PORT), Some("BENCH0001"))?)
    })?;
    vm.check("udevadm settle")?;
    rig.rest();
    watched(rig, vm_clock, "now disconnected from ttyUSB", || {
        marks.put(Mark::Unplug, Instant::now());
        Ok(pi.unplug(number)?)
    })?;
    rig.rest();
    let log = pi.kernel_log(pi_clock, begin)?;
    marks.read_pi(&log, BUSID);
    marks.read_vm(&vm.kernel_log(vm_clock, begin)?);
    marks.read_trace(&log);
    Ok(marks)
}

/// Does `act` and waits for a line in the VM's log.
fn watched<T>(
    rig: &Rig<'_>,
    clock: &Clock,
    text: &str,
    act: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let since = Instant::now();
    thread::scope(|scope| {
        let line = scope.spawn(|| rig.vm().await_log(clock, since, (text, 1), LIMIT));
        thread::sleep(ARMED);
        let done = act()?;
        line.join().map_err(|_| Error::Panicked)??;
        Ok(done)
    })
}

fn report(entries: &[Entry], results: &mut Results) {
    let columns: Vec<_> = entries
        .iter()
        .map(|entry| entry.column.to_owned())
        .collect();
    let row = |part: &str, label: &str, from, to| Row {
        label: label.to_owned(),
        cells: entries
            .iter()
            .map(|entry| {
                let values = entry
                    .rounds
                    .iter()
                    .filter_map(|marks| marks.between(from, to));
                let key = format!("plug_to_tty.{}.{part}_ms", entry.key);
                Figure::of(key, values.collect())
            })
            .collect(),
    };
    let plug = Table {
        title: "Plug to tty on the VM, ms (medians)".to_owned(),
        columns: columns.clone(),
        rows: PARTS
            .iter()
            .map(|(key, label, from, to)| row(key, label, *from, *to))
            .collect(),
    };
    let medians: Vec<_> = plug
        .rows
        .last()
        .map(|row| {
            let median = |cell: &Option<Figure>| cell.as_ref().map(|figure| figure.median);
            row.cells.iter().map(median).collect()
        })
        .unwrap_or_default();
    let total = |key: &str| {
        let index = entries.iter().position(|entry| entry.key == key)?;
        *medians.get(index)?
    };
    let mut unplug = row("unplug", "", Mark::Unplug, Mark::TtyGone);
    "unplug to the tty's end".clone_into(&mut unplug.label);
    for (cell, entry) in unplug.cells.iter_mut().zip(entries) {
        if let Some(figure) = cell {
            figure.key = format!("unplug_to_tty_gone.{}_ms", entry.key);
        }
    }
    results.tables.push(plug);
    results.tables.push(Table {
        title: "Unplug, ms (medians)".to_owned(),
        columns,
        rows: vec![unplug],
    });
    targets(total, results);
}

/// The product's promises. (a): fast enumeration on the VM's ports, as installed; (b): on the Pi's too; (c): on
/// neither.
fn targets(total: impl Fn(&str) -> Option<f64>, results: &mut Results) {
    let Some(floor) = total("floor") else { return };
    let Some(ours) = total("ours") else { return };
    let mut add = |target| results.targets.push(target);
    add(Target::at_most(
        "plug_to_tty.ours_by_floor",
        "plug to tty: ours (a), fast ports on the VM, by the kernels' floor",
        ours / floor,
        0.80,
    ));
    if let Some(fast) = total("ours_pi_fast") {
        add(Target::at_most(
            "plug_to_tty.ours_pi_fast_by_floor",
            "plug to tty: ours (b), fast ports on the Pi too, by the floor",
            fast / floor,
            0.62,
        ));
    }
    if let Some(plain) = total("ours_plain") {
        add(Target::at_most(
            "plug_to_tty.ours_plain_above_floor_ms",
            "plug to tty: ours (c), no fast ports, ms above the floor",
            plain - floor,
            25.0,
        ));
    }
    if let Some(classic) = total("classic") {
        add(Target::at_least(
            "plug_to_tty.classic_by_ours",
            "plug to tty: classic pipeline by ours (a)",
            classic / ours,
            5.0,
        ));
    }
}
