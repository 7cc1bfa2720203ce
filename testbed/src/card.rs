//! The Pi's card, as a person would have it after flashing: the partitions, `overlay/` and init of the real image,
//! put together by the same files from the distribution's packages.
//!
//! What it is made of is built once and kept; a card is put together anew for each run.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::image::payload::Payload;
use crate::image::{self, Images};
use crate::machine::{Accel, Machine, Role, Spec, run};
use crate::{pair, place};

/// First byte of the start partition, the FAT one that a person may put a file on.
const START: u64 = 1 << 20;
/// In the master boot record: where the entry of partition 4 says how many sectors it has.
const EXTENDED_SIZE: u64 = 446 + 3 * 16 + 12;
/// Where partition 7's own record is: what genimage.cfg has before it, in MiB.
const DATA_RECORD: u64 = (1 + 16 + 64 + 64 + 1 + 64 + 1 + 64) << 20;
/// The superblock of ext4 is 1 KiB into its partition, which begins 1 MiB after its record; its magic number is at 0x38.
const EXT4_MAGIC: u64 = DATA_RECORD + (1 << 20) + 1024 + 0x38;

/// What a card is started with.
#[derive(Debug, Clone)]
pub struct Card {
    /// Uncompressed kernel with a PVH entry.
    pub vmlinux: PathBuf,
    /// Mounts slot A as the root.
    pub initramfs: PathBuf,
    parts: PathBuf,
}

/// How far the first start of a box has come, as the card shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// As flashed.
    Flashed,
    /// The extended partition reaches to the end.
    Grown,
    /// The data partition has a file system, perhaps a part of it.
    Formatted,
    /// The data partition is said to be whole.
    Made,
}

impl Card {
    /// What cards are made of; builds it when it is not there yet, in a minute or two.
    pub fn ready(progress: &dyn Fn(&str)) -> Result<Self, image::Error> {
        let root = place::cache();
        fs::create_dir_all(&root).map_err(image::file("create", &root))?;
        let lock = root.join("card.lock");
        let guard = File::create(&lock).map_err(image::file("create", &lock))?;
        guard.lock().map_err(image::file("lock", &lock))?;
        let parts = root.join(format!("card-{}", image::fingerprint(&["card"])?));
        image::build("card/build.sh", &parts, progress)?;
        Ok(Self {
            vmlinux: parts.join("vmlinux"),
            initramfs: parts.join("initramfs"),
            parts,
        })
    }
}

/// A machine with a freshly flashed card. It is off.
#[derive(Debug)]
pub struct CardBox {
    /// The machine.
    pub machine: Machine,
    /// Leads to the ports of the box that were asked for, in their order.
    pub ports: Vec<u16>,
    file: PathBuf,
}

impl CardBox {
    /// Flashes a card with this appliance. `ports` of the box can be reached from this host.
    pub fn flash(card: Card, appliance: &Path, ports: &[u16]) -> Result<Self, pair::Error> {
        let run = run::Dir::create().map_err(|source| pair::Error::Run {
            path: place::cache(),
            source,
        })?;
        let run = Arc::new(run);
        let file = run.path().join("card.img");
        let payload = run.path().join("card.payload");
        fs::write(&payload, files(appliance)?).map_err(image::file("write", &payload))?;
        let script = place::source().join("card/assemble.sh");
        let assembled = Command::new("bash")
            .arg(&script)
            .args([&card.parts, &payload])
            .arg(run.path())
            .output()
            .map_err(image::file("run", &script))?;
        if !assembled.status.success() {
            let said = String::from_utf8_lossy(&assembled.stderr);
            let last = said.lines().last().unwrap_or_default().to_owned();
            return Err(image::Error::Build { last }.into());
        }
        let mut forwards = Vec::new();
        for port in ports {
            forwards.push((pair::free_port(0)?, *port));
        }
        let free = forwards.iter().map(|(host, _)| *host).collect();
        let spec = Spec {
            role: Role::Pi,
            images: Images::none(),
            accel: Accel::Tcg,
            memory_mib: 512,
            forwards,
            usb: true,
            card: Some(card),
        };
        Ok(Self {
            machine: Machine::new(spec, run, &[])?,
            ports: free,
            file,
        })
    }

    /// How far the first start has come.
    pub fn stage(&self) -> io::Result<Stage> {
        let mut card = File::open(&self.file)?;
        let mut bytes = |at, length| {
            let mut bytes = vec![0; length];
            card.seek(SeekFrom::Start(at))?;
            card.read_exact(&mut bytes).map(|()| bytes)
        };
        if bytes(DATA_RECORD + 446 + 4, 1)? == [0x83] {
            return Ok(Stage::Made);
        }
        if bytes(EXT4_MAGIC, 2)? == [0x53, 0xef] {
            return Ok(Stage::Formatted);
        }
        let size = bytes(EXTENDED_SIZE, 4)?;
        let sectors = size
            .iter()
            .rev()
            .fold(0, |size, b| size << 8 | u64::from(*b));
        let end = DATA_RECORD + (2 << 20);
        let flashed = (end - ((1 + 16 + 64 + 64) << 20)) / 512;
        Ok(if sectors > flashed {
            Stage::Grown
        } else {
            Stage::Flashed
        })
    }

    /// Puts a file on the start partition, as a person does at another computer. The box must be off.
    pub fn put(&self, name: &str, content: &str) -> Result<(), image::Error> {
        let host = self.file.with_file_name(name);
        fs::write(&host, content).map_err(image::file("write", &host))?;
        let image = format!("{}@@{START}", self.file.display());
        let copied = Command::new("mcopy")
            .args(["-o", "-i", &image])
            .arg(&host)
            .arg(format!("::{name}"))
            .output()
            .map_err(image::file("run", Path::new("mcopy")))?;
        if copied.status.success() {
            return Ok(());
        }
        let last = String::from_utf8_lossy(&copied.stderr).into_owned();
        Err(image::Error::Build { last })
    }

    /// What the box's screen has shown since the first start.
    pub fn screen(&self) -> io::Result<String> {
        let bytes = fs::read(self.file.with_file_name("pi.console"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// What is laid over the distribution's root.
fn files(appliance: &Path) -> Result<Vec<u8>, image::Error> {
    let mut payload = Payload::new();
    for dir in [place::overlay(), place::source().join("guest/card")] {
        payload.tree(&dir).map_err(image::file("read", &dir))?;
    }
    let agent = place::agent();
    for (name, path) in [
        ("usr/sbin/testbed-agent", agent.as_path()),
        ("usr/bin/appliance", appliance),
    ] {
        payload
            .copy(name, 0o755, path)
            .map_err(image::file("read", path))?;
    }
    Ok(payload.finish())
}
