//! What the product costs when all is quiet: memory, wake-ups, sizes of its files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::Error;
use super::figures::{Results, Table, Target};
use super::rig::{Fast, Program, Rig};
use crate::pair::Options;

/// How long wake-ups are counted: several of every timer's periods.
const IDLE_SECONDS: u32 = 20;

/// Measures with eight devices attached.
pub(super) fn measure(
    rig: &Rig<'_>,
    options: &Options,
    quick: bool,
    results: &mut Results,
) -> Result<(), Error> {
    rig.say("footprint: attaching eight devices");
    rig.run(Program::Appliance, Fast::DEFAULT)?;
    let devices = rig.plug_eight()?;
    rig.vm().check("udevadm settle")?;
    rig.rest();
    let seconds = if quick { 10 } else { IDLE_SECONDS };
    rig.say(&format!("footprint: counting wake-ups for {seconds} s"));

    let appliance = "$(pidof appliance)";
    let mut table = Table::single("Footprint, eight devices attached");
    let resident = kib(rig, "VmRSS", appliance)? / 1024.0;
    table.row(
        "appliance, resident, MiB",
        "footprint.appliance_resident_mib",
        vec![resident],
    );
    table.row(
        "appliance, of it its own, MiB",
        "footprint.appliance_anonymous_mib",
        vec![kib(rig, "RssAnon", appliance)? / 1024.0],
    );
    table.row(
        "the session's ssh, resident, MiB",
        "footprint.ssh_resident_mib",
        vec![kib(rig, "VmRSS", "$(pidof ssh)")? / 1024.0],
    );
    let wakes = wakes(rig, seconds)?;
    table.row(
        "appliance, wake-ups per s",
        "footprint.appliance_wakes_per_s",
        vec![wakes],
    );
    // One that SSH starts and one that is root, of the same program: pages that both use are counted once.
    let helper = rig.vm().check(
        "for dir in /proc/[0-9]*; do if readlink $dir/exe | grep -q vm-helper; then \
         sed -n 's/^Pss:[^0-9]*\\([0-9]*\\).*/\\1/p' $dir/smaps_rollup; fi; done",
    )?;
    let helper = sum(&helper, "the helper's memory")? / 1024.0;
    table.row(
        "helper on the VM, its processes together, MiB",
        "footprint.helper_resident_mib",
        vec![helper],
    );
    if let Some(path) = &options.appliance {
        table.row(
            "appliance, program, MiB",
            "footprint.appliance_program_mib",
            vec![size(path)?],
        );
    }
    let program = rig.vm().check("stat -c %s /usr/bin/vm-helper")?;
    table.row(
        "helper, program, MiB",
        "footprint.helper_program_mib",
        vec![sum(&program, "the helper's size")? / 1024.0 / 1024.0],
    );
    if let Some(path) = &options.helper {
        table.row(
            "helper, package, MiB",
            "footprint.helper_package_mib",
            vec![size(path)?],
        );
    }
    results.tables.push(table);
    results.targets.extend([
        Target::at_most(
            "footprint.appliance_resident_mib",
            "appliance's resident memory, MiB",
            resident,
            16.0,
        ),
        Target::at_most(
            "footprint.appliance_wakes_per_s",
            "appliance's wake-ups per second when idle",
            wakes,
            6.0,
        ),
        Target::at_most(
            "footprint.helper_resident_mib",
            "helper's resident memory, MiB",
            helper,
            3.0,
        ),
    ]);
    for number in devices {
        rig.pi().unplug(number)?;
    }
    rig.vm().wait_until("! ls /dev/ttyUSB* 2>/dev/null")?;
    Ok(())
}

/// One line of /proc/PID/status, added up over the Pi's processes `pids`.
fn kib(rig: &Rig<'_>, line: &str, pids: &str) -> Result<f64, Error> {
    let text = rig.pi().check(&format!(
        "for pid in {pids}; do sed -n 's/^{line}:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$pid/status; done"
    ))?;
    sum(&text, "a process's memory")
}

/// Times per second that a thread of the appliance went to sleep, which is as often as it was woken. What a thread
/// did that ended meanwhile is not counted: it was none that waits for something.
fn wakes(rig: &Rig<'_>, seconds: u32) -> Result<f64, Error> {
    let counts = "for task in /proc/$(pidof appliance)/task/*; do \
        echo \"${task##*/} $(sed -n 's/^voluntary_ctxt_switches:[^0-9]*//p' $task/status)\"; done";
    let text = rig
        .pi()
        .check(&format!("{counts}; echo after; sleep {seconds}; {counts}"))?;
    let (before, after) = text.split_once("after\n").ok_or_else(|| Error::Read {
        what: "wake-ups",
        text: text.clone(),
    })?;
    let (before, after) = (by_task(before), by_task(after));
    let switches: u32 = after
        .iter()
        .map(|(task, count)| count.saturating_sub(before.get(task).copied().unwrap_or(0)))
        .sum();
    Ok(f64::from(switches) / f64::from(seconds))
}

fn by_task(counts: &str) -> BTreeMap<u32, u32> {
    let line = |line: &str| {
        let (task, count) = line.split_once(' ')?;
        Some((task.parse().ok()?, count.parse().ok()?))
    };
    counts.lines().filter_map(line).collect()
}

/// Adds up the numbers of a text, of which there must be one.
fn sum(text: &str, what: &'static str) -> Result<f64, Error> {
    let numbers: Option<Vec<f64>> = text
        .split_whitespace()
        .map(|word| word.parse().ok())
        .collect();
    numbers
        .filter(|numbers| !numbers.is_empty())
        .map(|numbers| numbers.iter().sum())
        .ok_or_else(|| Error::Read {
            what,
            text: text.to_owned(),
        })
}

/// In MiB.
fn size(path: &Path) -> Result<f64, Error> {
    let meta = fs::metadata(path).map_err(|source| Error::File {
        act: "read",
        path: path.to_path_buf(),
        source,
    })?;
    #[expect(clippy::cast_precision_loss, reason = "a size of some MiB is exact")]
    let bytes = meta.len() as f64;
    Ok(bytes / 1024.0 / 1024.0)
}
