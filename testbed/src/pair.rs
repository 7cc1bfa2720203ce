//! Both machines together.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use crate::image::payload::Payload;
use crate::image::{self, Images};
use crate::machine::{self, Accel, Machine, Role, Spec, run};
use crate::place;

/// Where the portal listens on the Pi.
const PORTAL: u16 = 8080;
/// Where devices are exported on the Pi.
const USBIP: u16 = 3240;
/// What the portal offers, in the Pi.
const PACKAGES: &str = "usr/share/usbip-pi/packages";
/// The VM's package, in the VM.
const HELPER: &str = "/usr/share/testbed/vm-helper.deb";

/// Why the pair is not up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The images.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// One of the machines.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// A file to put into a machine.
    #[error("failed to read {path} for {role}")]
    Payload {
        /// Which machine.
        role: Role,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The folder of the run.
    #[error("failed to make a folder for the run in {path}")]
    Run {
        /// Where.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A port of this host.
    #[error("failed to use port {port} of this host")]
    Port {
        /// Which; 0 is any.
        port: u16,
        /// The cause.
        source: io::Error,
    },
    /// A thread ended by a panic.
    #[error("failed to start {0}: its thread panicked")]
    Panicked(Role),
}

/// What the two machines are to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// The Pi's program; without it the Pi runs a placeholder that does nothing.
    pub appliance: Option<PathBuf>,
    /// The VM's package; without it none is installed.
    pub helper: Option<PathBuf>,
    /// Port of this host that leads to the portal; none: any that is free.
    pub portal_port: Option<u16>,
    /// How the guests' code runs.
    pub accel: Accel,
    /// Whether the VM has USB ports of its own, for comparisons.
    pub vm_usb: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            appliance: None,
            helper: None,
            portal_port: None,
            accel: Accel::Tcg,
            vm_usb: false,
        }
    }
}

/// The Pi and the VM with a cable between them. Both are killed when this is dropped.
#[derive(Debug)]
pub struct Pair {
    /// The Pi, 10.9.0.1.
    pub pi: Machine,
    /// The VM, 10.9.0.2.
    pub vm: Machine,
    /// Leads to the portal: `http://127.0.0.1:PORT`.
    pub portal_port: u16,
    /// Leads to port 3240 of the Pi, from an address that is not the VM's.
    pub usbip_port: u16,
    helper: bool,
}

impl Pair {
    /// Prepares both machines; they are off.
    pub fn new(options: &Options, images: &Images) -> Result<Self, Error> {
        let run = run::Dir::create().map_err(|source| Error::Run {
            path: place::cache(),
            source,
        })?;
        let run = Arc::new(run);
        let portal_port = free_port(options.portal_port.unwrap_or(0))?;
        let usbip_port = free_port(0)?;
        let spec = |role, memory_mib, forwards, usb| Spec {
            role,
            images: images.clone(),
            accel: options.accel,
            memory_mib,
            forwards,
            usb,
            card: None,
        };
        let forwards = vec![(portal_port, PORTAL), (usbip_port, USBIP)];
        let pi = spec(Role::Pi, 512, forwards, true);
        let vm = spec(Role::Vm, 768, Vec::new(), options.vm_usb);
        Ok(Self {
            pi: Machine::new(
                pi,
                Arc::clone(&run),
                &pi_payload(options.appliance.as_deref(), options.helper.as_deref())?,
            )?,
            vm: Machine::new(vm, run, &vm_payload(options.helper.as_deref())?)?,
            portal_port,
            usbip_port,
            helper: options.helper.is_some(),
        })
    }

    /// Images, machines, boot, the VM's package: everything but pairing. `progress` is told what is waited for.
    pub fn start(options: &Options, progress: &(dyn Fn(&str) + Sync)) -> Result<Self, Error> {
        let images = Images::ready(progress)?;
        let pair = Self::new(options, &images)?;
        progress("starting both machines");
        pair.boot()?;
        if pair.helper {
            progress("installing the VM's package");
            pair.install_helper()?;
        }
        Ok(pair)
    }

    /// Switches both machines on and waits for both.
    pub fn boot(&self) -> Result<(), Error> {
        thread::scope(|scope| {
            let pi = scope.spawn(|| self.pi.boot());
            self.vm.boot()?;
            pi.join().map_err(|_| Error::Panicked(Role::Pi))??;
            Ok(())
        })
    }

    /// Installs the VM's package as a user would.
    pub fn install_helper(&self) -> Result<(), Error> {
        let install = format!(
            "DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends {HELPER}"
        );
        self.vm.check_within(&install, machine::COMMAND_LIMIT * 3)?;
        Ok(())
    }

    /// Pulls the network cable on the Pi's side. The Pi loses its carrier, the VM hears nothing any more.
    pub fn cut(&self) -> Result<(), Error> {
        Ok(self.pi.set_cable(false)?)
    }

    /// Plugs the cable in again.
    pub fn uncut(&self) -> Result<(), Error> {
        Ok(self.pi.set_cable(true)?)
    }

    /// Makes the two know each other, as pairing does: the Pi's key may run the handler on the VM, the VM's host
    /// key is known to the Pi, and each has the other's address.
    pub fn pair(&self) -> Result<(), Error> {
        let key = self.pi.wait_until("cat /data/ssh/id_ed25519.pub")?;
        let vm = &self.vm;
        vm.check("install -d -m 700 -o dev -g dev /home/dev/.ssh && install -d -m 755 /etc/usbip")?;
        let line = format!("restrict,command=\"/usr/bin/usb-event-handler\" {key}\n");
        vm.put("/home/dev/.ssh/authorized_keys", 0o600, line.as_bytes())?;
        vm.check("chown dev:dev /home/dev/.ssh/authorized_keys")?;
        let config = format!("DEFAULT_PI_HOST={}\n", Role::Pi.address());
        vm.put("/etc/usbip/pi.conf", 0o644, config.as_bytes())?;

        // The appliance pins keys under this name, whatever the VM's address.
        let pin = "sed -s 's/^\\([^ ]* [^ ]*\\).*/usbip-vm \\1/' /etc/ssh/ssh_host_*_key.pub";
        let known = vm.check(pin)? + "\n";
        self.pi
            .put("/data/ssh/known_hosts", 0o600, known.as_bytes())?;
        // A pairing outlives a loss of power that follows at once.
        vm.check("sync")?;
        // Last and at once: the appliance acts on this file.
        let config = format!("VM_HOST={}\nVM_USER=dev\n", Role::Vm.address());
        self.pi
            .put("/data/usbip/vm.conf.new", 0o644, config.as_bytes())?;
        self.pi
            .check("mv /data/usbip/vm.conf.new /data/usbip/vm.conf && sync")?;
        Ok(())
    }

    /// The machine with this role.
    #[must_use]
    pub fn machine(&self, role: Role) -> &Machine {
        match role {
            Role::Pi => &self.pi,
            Role::Vm => &self.vm,
        }
    }
}

fn pi_payload(appliance: Option<&Path>, helper: Option<&Path>) -> Result<Vec<u8>, Error> {
    let mut payload = Payload::new();
    let add = |path: PathBuf, result: io::Result<()>| {
        result.map_err(|source| Error::Payload {
            role: Role::Pi,
            path,
            source,
        })
    };
    for dir in [place::overlay(), place::source().join("guest/pi")] {
        let result = payload.tree(&dir);
        add(dir, result)?;
    }
    let agent = place::agent();
    let result = payload.copy("usr/sbin/testbed-agent", 0o755, &agent);
    add(agent, result)?;
    if let Some(path) = appliance {
        let result = payload.copy("usr/bin/appliance", 0o755, path);
        add(path.to_path_buf(), result)?;
    } else {
        payload.file(
            "usr/bin/appliance",
            0o755,
            b"#!/bin/sh\nexec tail -f /dev/null\n",
        );
    }
    // The VM's packages lie in one folder, and the Pi has all of them.
    if let Some(folder) = helper.and_then(Path::parent) {
        let result = offer(&mut payload, folder);
        add(folder.to_path_buf(), result)?;
    }
    Ok(payload.finish())
}

fn offer(payload: &mut Payload, folder: &Path) -> io::Result<()> {
    let mut place = PathBuf::new();
    for part in Path::new(PACKAGES) {
        place.push(part);
        payload.directory(&place.to_string_lossy());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("usbip-vm-helper") {
            let path = place.join(name);
            payload.copy(&path.to_string_lossy(), 0o644, &entry.path())?;
        }
    }
    Ok(())
}

fn vm_payload(helper: Option<&Path>) -> Result<Vec<u8>, Error> {
    let mut payload = Payload::new();
    let agent = place::agent();
    let failed = |path: &Path, source| Error::Payload {
        role: Role::Vm,
        path: path.to_path_buf(),
        source,
    };
    payload
        .copy("usr/sbin/testbed-agent", 0o755, &agent)
        .map_err(|err| failed(&agent, err))?;
    if let Some(path) = helper {
        payload.directory("usr/share/testbed");
        payload
            .copy(&HELPER[1..], 0o644, path)
            .map_err(|err| failed(path, err))?;
    }
    Ok(payload.finish())
}

/// A port of the loopback that is free now; `wanted` itself unless that is 0.
pub(crate) fn free_port(wanted: u16) -> Result<u16, Error> {
    TcpListener::bind(("127.0.0.1", wanted))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| Error::Port {
            port: wanted,
            source,
        })
}
