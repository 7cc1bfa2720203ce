//! What the portal costs: the real portal, manager and store, with a made-up bus and VM, on which one device is
//! plugged in and out ten times a second while 200 pages are open.
//!
//! `cargo run --release -p appliance --example portal_bench [-- --quick]` prints its figures as JSON; `make bench`
//! shows them with the others. The portal runs in a process of its own, whose memory is measured.

#![expect(
    clippy::unwrap_used,
    reason = "what does not work ends the measurement"
)]

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::json;

#[path = "portal_bench/client.rs"]
mod client;
#[path = "portal_bench/history.rs"]
mod history;
#[path = "../tests/portal/sample.rs"]
#[allow(dead_code, reason = "tests and other examples use the rest")]
mod sample;
#[path = "portal_bench/serve.rs"]
mod serve;

/// Pages that are kept up to date.
const READERS: usize = 200;

/// The portal's process; it ends with this.
struct Portal(Child);

impl Drop for Portal {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("serve") => serve::run(arguments.next().unwrap().as_ref()),
        Some("--quick") => measure(200),
        _ => measure(2000),
    }
}

fn measure(requests: usize) {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("serve")
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    let stdout = child.stdout.take().unwrap();
    let portal = Portal(child);
    BufReader::new(stdout).read_line(&mut port).unwrap();
    let address: SocketAddr = ([127, 0, 0, 1], port.trim().parse().unwrap()).into();

    let visitor = client::Visitor::claim(address);
    let load = visitor.first_load();
    let alone = visitor.dashboard(requests / 4);
    let readers = client::Readers::open(&visitor, READERS);
    let mut crowded = visitor.dashboard(requests);
    crowded.sort_by(f64::total_cmp);
    let (pictures, resident) = (readers.pictures(), resident_kib(portal.0.id()));
    drop(readers);
    drop(portal);
    let figures = json!({
        "dashboard_alone_ms": alone,
        "dashboard_ms": crowded,
        "dashboard_p99_ms": crowded[(crowded.len() * 99).div_ceil(100) - 1],
        "first_load_bytes": load.bytes,
        "first_load_requests": load.requests,
        "readers": READERS,
        "pictures_per_s": pictures,
        "resident_mib": resident / 1024.0,
        "history": history::measure(),
    });
    println!("{figures}");
}

/// Resident memory of a process.
fn resident_kib(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse().unwrap()
}

/// Milliseconds.
fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
