//! The folder of one run: logs that are kept, disks and sockets that are not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::place;

/// Folders of earlier runs that are kept.
const KEPT: usize = 8;

/// A folder of its own for each run, so that several test programs do not meet.
#[derive(Debug)]
pub struct Dir {
    path: PathBuf,
}

impl Dir {
    /// Makes `run-PID-N` in the cache folder and drops the oldest of those whose owners have ended.
    pub fn create() -> io::Result<Self> {
        let root = place::cache();
        fs::create_dir_all(&root)?;
        prune(&root)?;
        let path = root.join(format!("run-{}-{}", process::id(), unique()));
        fs::create_dir(&path)?;
        // Absolute, because QEMU works elsewhere.
        Ok(Self {
            path: fs::canonicalize(path)?,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if !(name.ends_with(".console") || name.ends_with(".log")) {
                // What is left over goes when the folder is pruned.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// A number that no one else in this process gets.
pub(crate) fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn prune(root: &Path) -> io::Result<()> {
    let mut ended = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let owner = name.to_str().and_then(owner);
        if let Some(pid) = owner
            && !Path::new("/proc").join(pid.to_string()).exists()
        {
            ended.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    ended.sort();
    let surplus = ended.len().saturating_sub(KEPT);
    for (_, path) in ended.into_iter().take(surplus) {
        // Another process may prune at the same moment.
        let _ = fs::remove_dir_all(path);
    }
    Ok(())
}

fn owner(name: &str) -> Option<u32> {
    name.strip_prefix("run-")?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_name_their_owner() {
        assert_eq!(owner("run-4711-2"), Some(4711));
        assert_eq!(owner("images-0a"), None);
    }
}
