//! The paired machines with the product on them.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use protocol::line::{Answer, Reply, VmStatus};

use super::{Error, artefact, wait_until, wait_until_within};
use crate::machine::Machine;
use crate::pair::{Options, Pair};

/// A Pi under TCG needs this to find a VM that has just come back, and a second pairing this to be taken up.
const SESSION: Duration = Duration::from_secs(90);

/// A command that puts a machine in order again, run when this is dropped.
#[derive(Debug)]
pub struct Undo<'a> {
    /// Where.
    pub machine: &'a Machine,
    /// What.
    pub command: String,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        // If it fails, the next scenario does not find its clean state and says so.
        let _ = self.machine.sh(&self.command);
    }
}

/// Both machines, the product on them, paired.
#[derive(Debug)]
pub struct Bed {
    /// The machines.
    pub pair: Pair,
    /// The cookie of the session with the portal, once there is one.
    pub(super) cookie: Mutex<Option<String>>,
}

impl Bed {
    /// Starts the machines with the product as it was built, pairs them, and waits for the session.
    pub fn start() -> Result<Self, Error> {
        Self::start_with(&Options::default())
    }

    /// As [`Bed::start`]; the programs in `options` are filled in.
    pub fn start_with(options: &Options) -> Result<Self, Error> {
        let options = Options {
            appliance: Some(artefact::appliance()?),
            helper: Some(artefact::helper()?),
            ..options.clone()
        };
        let begin = Instant::now();
        let pair = Pair::start(&options, &|line| {
            eprintln!("[{:5.1} s] {line}", begin.elapsed().as_secs_f64());
        })?;
        let bed = Self {
            pair,
            cookie: Mutex::default(),
        };
        bed.pair.pair()?;
        bed.session()?;
        eprintln!("[{:5.1} s] paired", begin.elapsed().as_secs_f64());
        Ok(bed)
    }

    /// The Pi.
    #[must_use]
    pub fn pi(&self) -> &Machine {
        &self.pair.pi
    }

    /// The VM.
    #[must_use]
    pub fn vm(&self) -> &Machine {
        &self.pair.vm
    }

    /// Makes the clean state that every scenario begins with: both machines on and connected, nothing plugged in,
    /// every vhci port free, paired, the session up.
    pub fn tidy(&self) -> Result<(), Error> {
        for machine in [self.pi(), self.vm()] {
            if !machine.is_on() {
                machine.kill();
                machine.boot()?;
            }
            machine.set_cable(true)?;
        }
        // With a hub goes what is in it.
        while let Some(plugged) = self.pi().plugged().first() {
            self.pi().unplug(plugged.number)?;
        }
        if wait_until_within("the session", SESSION / 3, || self.session_is_up()).is_err() {
            self.pair.pair()?;
            self.session()?;
        }
        wait_until("every vhci port free", || {
            let status = self.status().map_err(|error| error.to_string())?;
            let used = self.vhci_in_use().map_err(|error| error.to_string())?;
            if status.attachments.is_empty() && used.is_empty() {
                return Ok(());
            }
            Err(used.join("\n"))
        })
    }

    /// Waits until the Pi's session with the VM is up.
    pub fn session(&self) -> Result<(), Error> {
        wait_until_within("the session", SESSION, || self.session_is_up())
    }

    fn session_is_up(&self) -> Result<(), String> {
        let session = match self.view() {
            Ok(view) => view["session"].clone(),
            Err(error) => return Err(error.to_string()),
        };
        if session["state"] == "up" {
            Ok(())
        } else {
            Err(session.to_string())
        }
    }

    /// Keeps the Pi from having a session, until the returned guard is dropped: its key is not accepted any more and
    /// the session that runs is ended. What is attached stays so, and the Pi still knows the VM.
    pub fn hold_session_off(&self) -> Result<Undo<'_>, Error> {
        let keys = "/home/dev/.ssh/authorized_keys";
        let undo = Undo {
            machine: self.vm(),
            command: format!("mv {keys}.off {keys}"),
        };
        self.vm().check(&format!(
            "mv {keys} {keys}.off && pkill -f '[u]sb-event-handler session'"
        ))?;
        wait_until("the session's end", || match self.session_is_up() {
            Ok(()) => Err("it is up".to_owned()),
            Err(_) => Ok(()),
        })?;
        Ok(undo)
    }

    /// What the helper says is attached, as asked for by hand on the VM.
    pub fn status(&self) -> Result<VmStatus, Error> {
        let answer = self.vm().check("usb-event-handler status")?;
        match serde_json::from_str(&answer) {
            Ok(Reply {
                answer: Answer::Status(status),
                ..
            }) => Ok(status),
            _ => Err(Error::Answer {
                what: "the helper's status",
                answer,
            }),
        }
    }

    /// The lines of vhci's own status files that are not free, as the kernel writes them.
    pub fn vhci_in_use(&self) -> Result<Vec<String>, Error> {
        // The third word is the state; 4 is a free port.
        let list =
            "cat /sys/devices/platform/vhci_hcd.0/status* | awk '$1 ~ /^[hs]s$/ && $3 != \"004\"'";
        Ok(self.vm().check(list)?.lines().map(str::to_owned).collect())
    }

    /// What people need to understand a failure: what is attached, and how both machines stand.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "plugged in: {:?}", self.pi().plugged());
        let questions = [
            (
                self.vm(),
                "grep -v '004 000' /sys/devices/platform/vhci_hcd.0/status*",
            ),
            (self.vm(), "usb-event-handler status"),
            (
                self.vm(),
                "journalctl -q --no-pager -o short-monotonic -n 60",
            ),
            (self.pi(), "cat /sys/bus/usb/drivers/usbip-host/match_busid"),
            (self.pi(), "dmesg | tail -n 80"),
        ];
        for (machine, question) in questions {
            let answer = machine.sh(question).map_or_else(
                |error| error.to_string(),
                |output| output.stdout + &output.stderr,
            );
            let _ = writeln!(
                text,
                "---- {} {question}\n{}",
                machine.role(),
                answer.trim_end()
            );
        }
        for machine in [self.vm(), self.pi()] {
            let _ = writeln!(text, "---- {} {}", machine.role(), machine.last_words());
        }
        text
    }
}
