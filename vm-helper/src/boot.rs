//! `usb-boot-attach`: attach everything that the Pi exports, once it answers.

use std::{
    thread,
    time::{Duration, Instant},
};

use protocol::{
    line::Attachment,
    wire::{Device, Status},
};

use crate::{attach::Vm, failure::Error, import::Secured, links, module, names::Names};

/// How often the Pi is asked at first: it may be booting as well.
const EAGER: Duration = Duration::from_secs(1);
/// For how long.
const EAGER_FOR: Duration = Duration::from_mins(2);
/// How often after that, for ever.
const PATIENT: Duration = Duration::from_secs(10);
/// How long a device is asked for that the Pi holds for somebody else: perhaps for this machine
/// before its reboot, and then for its grace time at most.
const BUSY_LIMIT: Duration = Duration::from_mins(5);

/// What came of a device.
pub type Outcome = (Device, Result<Attachment, Error>);

/// Ask the Pi until it answers, attach all, and tell what came of each device.
pub fn attach_all(vm: &Vm) -> Result<Vec<Outcome>, Error> {
    vm.prepare()?;
    links::refresh_or_say(vm);
    module::load_serial_drivers();
    let start = Instant::now();
    let pause = || {
        thread::sleep(if start.elapsed() < EAGER_FOR {
            EAGER
        } else {
            PATIENT
        });
    };
    let mut vm = vm.clone();
    let mut last_said = String::new();
    let mut devices = loop {
        match vm.server.open().and_then(Secured::devlist_after_boot) {
            Ok(devices) => break devices,
            Err(error) => {
                let sentence = error.sentence();
                // Once per reason, not once per second.
                if sentence != last_said {
                    eprintln!("{sentence}; trying again until it answers");
                    last_said = sentence;
                }
                pause();
                // Somebody may have corrected it.
                if let Ok(now) = Vm::load(&vm.root)
                    && now.server.host != vm.server.host
                {
                    vm = now;
                }
            }
        }
    };
    Names::load(&vm.root).sort(&mut devices);
    let answered = Instant::now();
    let mut outcomes = Vec::new();
    loop {
        let (done, again): (Vec<Outcome>, Vec<Outcome>) = attach_each(&vm, devices)
            .into_iter()
            .partition(|(_, result)| match result {
                Err(error) => !may_pass(error) || answered.elapsed() > BUSY_LIMIT,
                Ok(_) => true,
            });
        outcomes.extend(done);
        if again.is_empty() {
            return Ok(outcomes);
        }
        devices = again.into_iter().map(|(device, _)| device).collect();
        pause();
    }
}

/// The imports follow each other in the order of names; the waiting for ttys overlaps.
fn attach_each(vm: &Vm, devices: Vec<Device>) -> Vec<Outcome> {
    let waiting: Vec<_> = devices
        .into_iter()
        .map(|device| {
            let begun = vm.begin(&device.busid, None);
            let vm = vm.clone();
            thread::spawn(move || {
                let result = begun.and_then(|begun| vm.finish(begun));
                (device, result)
            })
        })
        .collect();
    // A thread that panicked has said so; its device is the session's then.
    waiting
        .into_iter()
        .filter_map(|waiting| waiting.join().ok())
        .collect()
}

/// Whether the reason may go away by itself.
fn may_pass(error: &Error) -> bool {
    matches!(
        error,
        Error::Refused {
            status: Status::DeviceBusy,
            ..
        } | Error::Resolve { .. }
            | Error::Connect { .. }
            | Error::Handshake { .. }
            | Error::Vanished { .. }
            | Error::Locked { .. }
    )
}
