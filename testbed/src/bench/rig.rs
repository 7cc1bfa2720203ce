//! Two paired machines, and what the measurements change about them.

use std::thread;
use std::time::{Duration, Instant};

use super::Error;
use crate::machine::{Clock, Machine, Role};
use crate::pair::{Options, Pair};
use crate::redir::Kind;

/// A session under TCG comes up within a tenth of this.
pub(super) const SESSION: Duration = Duration::from_mins(2);
/// What the appliance writes when it may send the VM to work.
pub(super) const SESSION_UP: &str = "session is up";

/// Devices attached where their number matters.
pub(super) const DEVICES: u8 = 8;

/// What runs in the appliance's place on the Pi.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    /// The appliance as it is shipped.
    Appliance,
    /// The appliance, telling what it hears.
    Traced,
    /// Nothing, so that the stock tools can.
    Nothing,
}

/// Which ports enumerate fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fast {
    /// Those of the VM's virtual controller.
    pub(super) vm: bool,
    /// The Pi's own.
    pub(super) pi: bool,
}

impl Fast {
    /// As both are installed.
    pub(super) const DEFAULT: Self = Self {
        vm: true,
        pi: false,
    };
    /// As the kernel has it.
    pub(super) const NONE: Self = Self {
        vm: false,
        pi: false,
    };
}

/// The machines.
pub(super) struct Rig<'a> {
    pub(super) pair: Pair,
    progress: &'a (dyn Fn(&str) + Sync),
}

impl<'a> Rig<'a> {
    /// Boots and pairs both machines. The VM has USB ports of its own, to which devices can be plugged directly.
    pub(super) fn start(
        options: &Options,
        progress: &'a (dyn Fn(&str) + Sync),
    ) -> Result<Self, Error> {
        let options = Options {
            vm_usb: true,
            ..options.clone()
        };
        let pair = Pair::start(&options, progress)?;
        pair.pair()?;
        // What takes the appliance's place lies over it, so that init goes on to keep it running.
        pair.pi.check(
            "mkdir -p /run/bench/traced && cp /usr/bin/appliance /run/bench/traced/appliance",
        )?;
        let idle = b"#!/bin/sh\necho $$ >/run/bench/idle.pid\nexec sleep 999999\n";
        pair.pi.put("/run/bench/idle", 0o755, idle)?;
        let traced = b"#!/bin/sh\nexport APPLIANCE_LOG=info,appliance::manager=debug\n\
            exec /run/bench/traced/appliance\n";
        pair.pi.put("/run/bench/trace", 0o755, traced)?;
        let rig = Self { pair, progress };
        rig.vm().check("modprobe vhci_hcd")?;
        Ok(rig)
    }

    pub(super) fn pi(&self) -> &Machine {
        &self.pair.pi
    }

    pub(super) fn vm(&self) -> &Machine {
        &self.pair.vm
    }

    pub(super) fn say(&self, line: &str) {
        (self.progress)(line);
    }

    pub(super) fn clocks(&self) -> Result<(Clock, Clock), Error> {
        Ok((self.pi().clock()?, self.vm().clock()?))
    }

    /// Has `program` run on the Pi, with these ports fast, and waits until it is at work.
    pub(super) fn run(&self, program: Program, fast: Fast) -> Result<(), Error> {
        let yes = |on| if on { "yes" } else { "no" };
        let conf = format!("FAST_ENUMERATION={}\n", yes(fast.pi));
        self.pi()
            .put("/etc/usbip/appliance.conf", 0o644, conf.as_bytes())?;
        let conf = format!(
            "DEFAULT_PI_HOST={}\nFAST_ENUMERATION={}\n",
            Role::Pi.address(),
            yes(fast.vm)
        );
        self.vm()
            .put("/etc/usbip/pi.conf", 0o644, conf.as_bytes())?;
        let clock = self.pi().clock()?;
        let before = Instant::now();
        let over = match program {
            Program::Appliance => "true",
            Program::Traced => "mount --bind /run/bench/trace /usr/bin/appliance",
            Program::Nothing => "mount --bind /run/bench/idle /usr/bin/appliance",
        };
        // SIGKILL would leave the old session's ssh behind; on SIGTERM the appliance closes it.
        self.pi().check(&format!(
            "umount -l /usr/bin/appliance 2>/dev/null; {over} || exit 1
            old=\"$(pidof appliance) $(cat /run/bench/idle.pid 2>/dev/null)\"; rm -f /run/bench/idle.pid
            kill $old
            for pid in $old; do while [ -e /proc/$pid ]; do usleep 50000; done; done"
        ))?;
        if program == Program::Nothing {
            let listens = "cat /proc/net/tcp /proc/net/tcp6 | grep -q ':0CA8 [0-9A-F:]* 0A '";
            self.pi().wait_until(&format!("! {listens}"))?;
        }
        // The product sets what it was told to; the rest is put back as the kernel has it.
        let quirks = |on| if on { 3 } else { 0 };
        self.pi().check(&format!(
            "for file in /sys/bus/usb/devices/*-0:1.0/usb*-port*/quirks; do echo {} >$file; done",
            quirks(fast.pi)
        ))?;
        self.vm().check(&format!(
            "for file in /sys/devices/platform/vhci_hcd.*/usb*/*-0:1.0/usb*-port*/quirks; do \
             echo {} >$file; done",
            quirks(fast.vm)
        ))?;
        if program != Program::Nothing {
            self.pi()
                .await_log(&clock, before, (SESSION_UP, 1), SESSION)?;
        }
        self.rest();
        Ok(())
    }

    /// Plugs [`DEVICES`] converters into the Pi and waits for their ttys on the VM. Returns their numbers.
    pub(super) fn plug_eight(&self) -> Result<Vec<u32>, Error> {
        let clock = self.vm().clock()?;
        let begin = Instant::now();
        let mut numbers = Vec::new();
        for index in 1..=DEVICES {
            let serial = format!("BENCH01{index:02}");
            let port = index.to_string();
            numbers.push(self.pi().plug(Kind::Cp2102, Some(&port), Some(&serial))?);
        }
        let ttys = ("now attached to ttyUSB", usize::from(DEVICES));
        self.vm().await_log(&clock, begin, ttys, SESSION)?;
        Ok(numbers)
    }

    /// Lets both machines finish what they were still at, so that it does not fall into a measurement.
    #[expect(
        clippy::unused_self,
        reason = "reads as what it is: the machines' rest"
    )]
    pub(super) fn rest(&self) {
        thread::sleep(Duration::from_millis(700));
    }
}
