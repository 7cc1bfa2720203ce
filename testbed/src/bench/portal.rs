//! What the portal costs: the real portal and manager on this host, with a made-up bus and VM (the appliance's
//! example `portal_bench`).

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::Error;
use super::figures::{Results, Table, Target};
use crate::place;

/// The dashboard, with every page open and a device that flaps.
const DASHBOARD_MS: f64 = 20.0;
/// What a browser fetches first.
const FIRST_LOAD_KB: f64 = 40.0;
const FIRST_LOAD_REQUESTS: f64 = 4.0;
/// Resident after all that.
const RESIDENT_MIB: f64 = 24.0;

/// Measures on this host, without the machines.
pub(super) fn measure(
    quick: bool,
    progress: &dyn Fn(&str),
    results: &mut Results,
) -> Result<(), Error> {
    progress("portal: 200 open pages, and a device that flaps ten times a second");
    let program = place::portal_bench();
    let mut command = Command::new(&program);
    if quick {
        command.arg("--quick");
    }
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|source| Error::File {
        act: "run",
        path: program.clone(),
        source,
    })?;
    if !output.status.success() {
        return Err(failed(program, &output.status.to_string()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Value =
        serde_json::from_str(&text).map_err(|_| failed(program, &format!("it said '{text}'")))?;
    report(&figures, results)
}

fn failed(path: PathBuf, why: &str) -> Error {
    Error::File {
        act: "measure with",
        path,
        source: io::Error::other(why.to_owned()),
    }
}

fn report(figures: &Value, results: &mut Results) -> Result<(), Error> {
    let numbers = |pointer: &str, what| {
        let value = figures.pointer(pointer).unwrap_or(&Value::Null);
        let list = value
            .as_array()
            .map_or(std::slice::from_ref(value), Vec::as_slice);
        let numbers: Option<Vec<f64>> = list.iter().map(Value::as_f64).collect();
        numbers.ok_or_else(|| Error::Read {
            what,
            text: figures.to_string(),
        })
    };
    let number = |pointer: &str, what| {
        Ok::<f64, Error>(numbers(pointer, what)?.first().copied().unwrap_or_default())
    };
    let mut table = Table::single("Portal, 200 open pages, a device that flaps 10 times a second");
    let rows = [
        (
            "dashboard, nobody else there, ms",
            "dashboard_alone_ms",
            "/dashboard_alone_ms",
        ),
        ("dashboard, ms", "dashboard_ms", "/dashboard_ms"),
        (
            "changes sent to all pages, per s",
            "pictures_per_s",
            "/pictures_per_s",
        ),
        (
            "history of 100,000 events, newest page, ms",
            "history_newest_ms",
            "/history/newest_ms",
        ),
        (
            "the same, filtered, ms",
            "history_filtered_ms",
            "/history/filtered_ms",
        ),
    ];
    for (label, key, pointer) in rows {
        table.row(label, &format!("portal.{key}"), numbers(pointer, label)?);
    }
    let size = number("/history/bytes", "the history's size")?;
    table.row(
        "the same on disk, MiB",
        "portal.history_mib",
        vec![size / 1024.0 / 1024.0],
    );
    let p99 = number("/dashboard_p99_ms", "the slowest answers")?;
    let bytes = number("/first_load_bytes", "the first load")?;
    let requests = number("/first_load_requests", "the first load")?;
    let resident = number("/resident_mib", "resident memory")?;
    for (label, key, value) in [
        ("dashboard, 99 of 100 within, ms", "dashboard_p99_ms", p99),
        ("first load, kB", "first_load_kb", bytes / 1000.0),
        ("first load, requests", "first_load_requests", requests),
        ("resident after that, MiB", "resident_mib", resident),
    ] {
        table.row(label, &format!("portal.{key}"), vec![value]);
    }
    results.tables.push(table);
    results.targets.extend([
        Target::at_most(
            "portal.dashboard_p99_ms",
            "ms for the dashboard, 99 of 100, with 200 open pages and a flapping device",
            p99,
            DASHBOARD_MS,
        ),
        Target::at_most(
            "portal.first_load_kb",
            "kB to show the dashboard first",
            bytes / 1000.0,
            FIRST_LOAD_KB,
        ),
        Target::at_most(
            "portal.first_load_requests",
            "requests to show the dashboard first",
            requests,
            FIRST_LOAD_REQUESTS,
        ),
        Target::at_most(
            "portal.resident_mib",
            "MiB resident after that, portal, manager and history",
            resident,
            RESIDENT_MIB,
        ),
    ]);
    Ok(())
}
