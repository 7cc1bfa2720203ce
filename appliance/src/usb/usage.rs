//! What this Pi itself uses a device for: network interfaces and mounted file systems.

use std::{collections::HashSet, fs, path::Path};

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

/// Looks below the interface directories of `device`, a real path in sysfs.
///
/// `mounts` is the text of a `mountinfo` file (proc_pid_mountinfo(5)). Directories that vanish
/// meanwhile count as empty.
#[must_use]
pub fn of_device(device: &Path, name: &str, mounts: &str) -> Usage {
    let mounted = mounted_devices(mounts);
    let mut usage = Usage::default();
    for (entry, path) in directories(device) {
        if entry
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(':'))
        {
            look(&path, MAX_DEPTH, &mounted, &mut usage);
        }
    }
    usage
}

/// Major and minor numbers, as `8:1`, and device files of all mounts.
fn mounted_devices(mounts: &str) -> HashSet<&str> {
    mounts
        .lines()
        .flat_map(|line| {
            let number = line.split(' ').nth(2);
            let file = line
                .split_once(" - ")
                .and_then(|(_, rest)| rest.split(' ').nth(1));
            number.into_iter().chain(file)
        })
        .collect()
}

fn look(directory: &Path, depth: usize, mounted: &HashSet<&str>, usage: &mut Usage) {
    for (entry, path) in directories(directory) {
        match entry.as_str() {
            "net" => {
                let interface = directories(&path).into_iter().next();
                usage.network = usage.network.take().or(interface.map(|(name, _)| name));
            }
            "block" => {
                for (disk, path) in directories(&path) {
                    look_at_disk(&disk, &path, mounted, usage);
                }
            }
            "power" => {}
            _ if depth > 0 => look(&path, depth - 1, mounted, usage),
            _ => {}
        }
    }
}

fn look_at_disk(disk: &str, path: &Path, mounted: &HashSet<&str>, usage: &mut Usage) {
    let partitions = directories(path)
        .into_iter()
        .filter(|(name, _)| name.starts_with(disk));
    for (name, path) in partitions.chain([(disk.to_owned(), path.to_owned())]) {
        let number = fs::read_to_string(path.join("dev")).unwrap_or_default();
        let held = fs::read_dir(path.join("holders")).is_ok_and(|mut held| held.next().is_some());
        if held
            || mounted.contains(number.trim())
            || mounted.contains(format!("/dev/{name}").as_str())
        {
            usage.mounted.get_or_insert(name);
        }
    }
}

/// Real directories in a directory, sorted by name.
fn directories(path: &Path) -> Vec<(String, std::path::PathBuf)> {
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
