//! What this Pi itself uses a device for: network interfaces and mounted file systems.

use std::{
    cell::OnceCell,
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

/// How deep below an interface a disk's partition lies, with some to spare
/// (`1-1:1.0/host0/target0:0:0/0:0:0:0/block/sda/sda1`).
const MAX_DEPTH: usize = 8;

/// What hangs below a device's interfaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Name of a network interface.
    pub network: Option<String>,
    /// Name of a disk or partition with a mounted file system, or one held by a mapper or array.
    pub mounted: Option<String>,
}

/// What is mounted, read when the first disk asks: few devices have one.
#[derive(Debug)]
pub struct Mounts {
    file: PathBuf,
    devices: OnceCell<HashSet<String>>,
}

impl Mounts {
    /// By a file in the form of proc_pid_mountinfo(5).
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            devices: OnceCell::new(),
        }
    }

    /// Whether a device is mounted, by its number, as `8:1`, or its file.
    fn have(&self, device: &str) -> bool {
        self.devices.get_or_init(|| self.read()).contains(device)
    }

    fn read(&self) -> HashSet<String> {
        let bytes = fs::read(&self.file).unwrap_or_else(|error| {
            tracing::warn!(path = %self.file.display(), %error, "failed to read the mounts");
            Vec::new()
        });
        mounted_devices(&String::from_utf8_lossy(&bytes))
    }
}

/// Looks below `interfaces`, directories of sysfs by their real paths. Those that are not there, or
/// vanish meanwhile, count as empty.
pub fn below(interfaces: impl IntoIterator<Item = PathBuf>, mounts: &Mounts) -> Usage {
    let mut usage = Usage::default();
    for interface in interfaces {
        look(&interface, MAX_DEPTH, mounts, &mut usage);
    }
    usage
}

/// Major and minor numbers, as `8:1`, and device files of all mounts.
fn mounted_devices(mounts: &str) -> HashSet<String> {
    mounts
        .lines()
        .flat_map(|line| {
            let number = line.split(' ').nth(2);
            let file = line
                .split_once(" - ")
                .and_then(|(_, rest)| rest.split(' ').nth(1));
            number.into_iter().chain(file)
        })
        .map(str::to_owned)
        .collect()
}

fn look(directory: &Path, depth: usize, mounts: &Mounts, usage: &mut Usage) {
    for (entry, path) in directories(directory) {
        match entry.as_str() {
            "net" => {
                let interface = directories(&path).into_iter().next();
                usage.network = usage.network.take().or(interface.map(|(name, _)| name));
            }
            "block" => {
                for (disk, path) in directories(&path) {
                    look_at_disk(&disk, &path, mounts, usage);
                }
            }
            "power" => {}
            // Endpoints.
            _ if entry.starts_with("ep_") => {}
            _ if depth > 0 => look(&path, depth - 1, mounts, usage),
            _ => {}
        }
    }
}

fn look_at_disk(disk: &str, path: &Path, mounts: &Mounts, usage: &mut Usage) {
    let partitions = directories(path)
        .into_iter()
        .filter(|(name, _)| name.starts_with(disk));
    for (name, path) in partitions.chain([(disk.to_owned(), path.to_owned())]) {
        let number = fs::read_to_string(path.join("dev")).unwrap_or_default();
        let held = fs::read_dir(path.join("holders")).is_ok_and(|mut held| held.next().is_some());
        if held || mounts.have(number.trim()) || mounts.have(&format!("/dev/{name}")) {
            usage.mounted.get_or_insert(name);
        }
    }
}

/// Real directories in a directory, sorted by name.
fn directories(path: &Path) -> Vec<(String, PathBuf)> {
    let mut found: Vec<_> = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, entry.path())
        })
        .collect();
    found.sort();
    found
}
