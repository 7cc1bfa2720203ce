//! `GET /metrics`, in Prometheus' text format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::Write as _;

use actix_web::{HttpResponse, http::header, web};

use super::{Context, live::Live};
use crate::{
    history::{BUCKETS_MS, Counts, Kind},
    manager::{
        View,
        view::{DeviceState, SessionView},
    },
};

/// The states of a device, as they are called in `/api/v1/status`.
const STATES: [&str; 7] = [
    "skipped",
    "bound",
    "attaching",
    "attached",
    "cycling",
    "missing",
    "failed",
];

/// `GET /metrics`
pub(super) async fn metrics(context: web::Data<Context>, live: web::Data<Live>) -> HttpResponse {
    let view = context.view.borrow().clone();
    let mut text = Text::default();
    text.view(&view);
    text.counts(&context.history.counts());
    text.process(live.readers());
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(text.0)
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn view(&mut self, view: &View) {
        self.head("devices", "gauge", "Plugged-in devices by state.");
        for state in STATES {
            let devices = view.devices.iter().filter(|d| word(&d.state) == state);
            self.sample(
                &format!("devices{{state=\"{state}\"}}"),
                &devices.count().to_string(),
            );
        }
        let up = matches!(view.session, SessionView::Up { .. });
        self.one(
            "session_up",
            "gauge",
            "1 while the session with the VM is up.",
            u64::from(up),
        );
        if let Some((free, total)) = view.vhci_ports {
            let help = "Ports of the VM's virtual USB host.";
            self.one("vhci_ports", "gauge", help, total.into());
            let help = "Ports of the VM's virtual USB host that are free.";
            self.one("vhci_ports_free", "gauge", help, free.into());
        }
    }

    fn counts(&mut self, counts: &Counts) {
        let help = "Sessions with the VM after the first.";
        let sessions = counts.of(Kind::SessionUp);
        self.one(
            "reconnects_total",
            "counter",
            help,
            sessions.saturating_sub(1),
        );
        let help = "Imports that were refused.";
        self.one(
            "refused_imports_total",
            "counter",
            help,
            counts.of(Kind::Refused),
        );
        self.head(
            "events_total",
            "counter",
            "What the history tells of, by kind.",
        );
        for kind in Kind::ALL {
            let name = format!("events_total{{kind=\"{}\"}}", kind.as_str());
            self.sample(&name, &counts.of(*kind).to_string());
        }
        let help = "From plug to tty, of devices plugged in while the session was up.";
        self.head("plug_to_tty_seconds", "histogram", help);
        for (most, count) in BUCKETS_MS.iter().zip(counts.cumulative()) {
            let name = format!("plug_to_tty_seconds_bucket{{le=\"{}\"}}", seconds(*most));
            self.sample(&name, &count.to_string());
        }
        let count = counts.attached.to_string();
        self.sample("plug_to_tty_seconds_bucket{le=\"+Inf\"}", &count);
        self.sample("plug_to_tty_seconds_sum", &seconds(counts.attached_ms));
        self.sample("plug_to_tty_seconds_count", &count);
    }

    fn process(&mut self, readers: usize) {
        let help = "Open pages that are kept up to date.";
        self.one("live_readers", "gauge", help, readers as u64);
        self.head("build_info", "gauge", "The appliance's version.");
        let version = concat!("build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
        self.sample(version, "1");
        if let Some(bytes) = resident() {
            // Named as Prometheus' own libraries name it.
            let _ = write!(
                self.0,
                "# HELP process_resident_memory_bytes Memory in use.\n\
                 # TYPE process_resident_memory_bytes gauge\n\
                 process_resident_memory_bytes {bytes}\n"
            );
        }
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        self.sample(name, &value.to_string());
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(
            self.0,
            "# HELP usbip_pi_{name} {help}\n# TYPE usbip_pi_{name} {kind}\n"
        );
    }

    fn sample(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.0, "usbip_pi_{name} {value}");
    }
}

fn word(state: &DeviceState) -> &'static str {
    match state {
        DeviceState::Skipped { .. } => "skipped",
        DeviceState::Bound { .. } => "bound",
        DeviceState::Attaching => "attaching",
        DeviceState::Attached { .. } => "attached",
        DeviceState::Cycling => "cycling",
        DeviceState::Missing => "missing",
        DeviceState::Failed { .. } => "failed",
    }
}

/// Milliseconds in seconds.
fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// Memory of this process in bytes: the second field of `/proc/self/statm` (proc(5)), in pages. The
/// file is made by the kernel as it is read; nothing waits for a disk.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
