//! The moments of an attachment, as the two kernels' logs tell them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::machine::LogLine;

/// A moment on the way from the plug to the tty and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    /// The device is plugged in, by this host's order.
    Plug,
    /// The Pi's hub has settled and reset the port.
    PiNew,
    /// The Pi has read the device's descriptors.
    PiFound,
    /// Whoever is to share it knows of it.
    Noticed,
    /// usbip-host has it.
    Bound,
    /// The VM knows of it.
    Told,
    /// The VM's kernel has the socket.
    Attached,
    /// The VM has read the device's descriptors.
    VmFound,
    /// Its tty exists on the VM.
    Tty,
    /// The device is unplugged, by this host's order.
    Unplug,
    /// The tty has gone.
    TtyGone,
}

/// Marks of one round, by this host's clock.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks(BTreeMap<Mark, Instant>);

impl Marks {
    /// The first of its kind counts.
    pub(super) fn put(&mut self, mark: Mark, at: Instant) {
        self.0.entry(mark).or_insert(at);
    }

    /// Milliseconds between two marks, none when one is missing. Clocks of two machines may disagree by half a
    /// millisecond, so it can be just below zero.
    pub(super) fn between(&self, from: Mark, to: Mark) -> Option<f64> {
        let (from, to) = (*self.0.get(&from)?, *self.0.get(&to)?);
        let later = to.saturating_duration_since(from).as_secs_f64();
        Some((later - from.saturating_duration_since(to).as_secs_f64()) * 1e3)
    }

    /// What the Pi's log tells of the device at `busid`.
    pub(super) fn read_pi(&mut self, log: &[LogLine], busid: &str) {
        let device = format!("usb {busid}: ");
        // The last is of a traced appliance.
        let noticed = ["classic: noticed", "floor: noticed", "ordered effect=Bind("];
        let bound = format!("usbip-host {busid}: usbip-host: register new device");
        for line in log {
            let text = &line.text;
            if text.starts_with(&device) && text.contains("-speed USB device") {
                self.put(Mark::PiNew, line.at);
            } else if text.starts_with(&device) && text.contains("New USB device found") {
                self.put(Mark::PiFound, line.at);
            } else if noticed.iter().any(|noticed| text.contains(*noticed)) {
                self.put(Mark::Noticed, line.at);
            } else if text.starts_with(&bound) {
                self.put(Mark::Bound, line.at);
            }
        }
    }

    /// What the VM's log tells.
    pub(super) fn read_vm(&mut self, log: &[LogLine]) {
        for line in log {
            let text = &line.text;
            if text == "floor: told" || text == "classic: told" {
                self.put(Mark::Told, line.at);
            } else if text.starts_with("vhci_hcd") && text.contains(" pdev(") {
                self.put(Mark::Attached, line.at);
            } else if text.starts_with("usb ") && text.contains("New USB device found") {
                self.put(Mark::VmFound, line.at);
            } else if text.contains("now attached to ttyUSB") {
                self.put(Mark::Tty, line.at);
            } else if text.contains("now disconnected from ttyUSB") {
                self.put(Mark::TtyGone, line.at);
            }
        }
    }

    /// The helper says how long its import took, and its request came that much before the kernel had the socket:
    /// `import_ms: 12.3` in what a traced appliance writes.
    pub(super) fn read_trace(&mut self, log: &[LogLine]) {
        let import = log.iter().find_map(|line| {
            let (_, rest) = line.text.split_once("import_ms: ")?;
            rest.split(|c: char| !c.is_ascii_digit() && c != '.')
                .next()?
                .parse::<f64>()
                .ok()
        });
        let began = import.and_then(|ms| Duration::try_from_secs_f64(ms / 1e3).ok());
        let attached = self.0.get(&Mark::Attached);
        if let (Some(took), Some(attached)) = (began, attached)
            && let Some(told) = attached.checked_sub(took)
        {
            self.put(Mark::Told, told);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(zero: Instant, lines: &[(u64, &str)]) -> Vec<LogLine> {
        let line = |(ms, text): &(u64, &str)| LogLine {
            at: zero + Duration::from_millis(*ms),
            kernel: Duration::from_millis(*ms),
            text: (*text).to_owned(),
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn both_logs_give_the_parts_of_an_attachment() {
        let zero = Instant::now();
        let mut marks = Marks::default();
        marks.put(Mark::Plug, zero);
        let pi = log(
            zero,
            &[
                (
                    220,
                    "usb 1-1: new full-speed USB device number 3 using xhci_hcd",
                ),
                (
                    357,
                    "usb 1-1: New USB device found, idVendor=0403, idProduct=6001",
                ),
                (
                    372,
                    "DEBUG appliance::manager::run: ordered effect=Bind(BusId(\"1-1\"), DevId(65539))",
                ),
                (
                    376,
                    "usbip-host 1-1: usbip-host: register new device (bus 1 dev 3)",
                ),
                (
                    800,
                    "DEBUG appliance::manager::run: heard input=Vm(.. Timings { import_ms: 12.5, attach_ms: 1.0 })",
                ),
            ],
        );
        let vm = log(
            zero,
            &[
                (400, "vhci_hcd vhci_hcd.0: pdev(0) rhport(0) sockfd(6)"),
                (
                    401,
                    "vhci_hcd vhci_hcd.0: devid(65539) speed(2) speed_str(full-speed)",
                ),
                (
                    640,
                    "usb 3-1: New USB device found, idVendor=0403, idProduct=6001",
                ),
                (
                    700,
                    "usb 3-1: FTDI USB Serial Device converter now attached to ttyUSB0",
                ),
            ],
        );
        marks.read_pi(&pi, "1-1");
        marks.read_vm(&vm);
        marks.read_trace(&pi);
        let part = |from, to| marks.between(from, to).unwrap().round();
        for (from, to, ms) in [
            (Mark::Plug, Mark::PiNew, 220.0),
            (Mark::PiNew, Mark::PiFound, 137.0),
            (Mark::PiFound, Mark::Noticed, 15.0),
            (Mark::Noticed, Mark::Bound, 4.0),
            (Mark::Told, Mark::Attached, 13.0),
            (Mark::Attached, Mark::VmFound, 240.0),
            (Mark::Plug, Mark::Tty, 700.0),
        ] {
            assert!((part(from, to) - ms).abs() < 0.6, "{from:?} to {to:?}");
        }
        assert_eq!(marks.between(Mark::Unplug, Mark::TtyGone), None);
    }
}
