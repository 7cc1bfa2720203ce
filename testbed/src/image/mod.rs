//! What the guests start from: a kernel, an initramfs and two root file systems.
//!
//! They are built by `testbed/image/build.sh`, kept under a name derived from everything that goes into
//! them, and never written to: a run works on copies. What changes from run to run travels in a
//! [`payload`].

pub mod payload;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use crate::{pattern, place};

/// Why there are no images.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program of the host is missing.
    #[error(
        "failed to find {program} on this host: install the packages in testbed/apt-packages.txt \
         (apt-get install $(cat testbed/apt-packages.txt))"
    )]
    Missing {
        /// Its name.
        program: &'static str,
    },
    /// A file could not be read or written.
    #[error("failed to {act} {path}")]
    File {
        /// Read, write and so on.
        act: &'static str,
        /// Which.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The script that builds the images failed.
    #[error("failed to build the images; the last it said: {last}")]
    Build {
        /// The last line of its output.
        last: String,
    },
}

/// Programs the build and the machines call, in the packages of apt-packages.txt.
const PROGRAMS: [&str; 9] = [
    "qemu-system-x86_64",
    "qemu-img",
    "mmdebstrap",
    "mkfs.ext4",
    "cpio",
    "xz",
    "zstd",
    "depmod",
    "setpriv",
];

/// Finished images.
#[derive(Debug, Clone)]
pub struct Images {
    /// Uncompressed kernel with a PVH entry.
    pub vmlinux: PathBuf,
    /// Reaches the root and lays the payload over it.
    pub initramfs: PathBuf,
    /// Root of the Pi, ext4.
    pub pi: PathBuf,
    /// Root of the VM, ext4.
    pub vm: PathBuf,
}

impl Images {
    /// For a machine that starts from a card.
    pub(crate) fn none() -> Self {
        let none = PathBuf::new;
        Self {
            vmlinux: none(),
            initramfs: none(),
            pi: none(),
            vm: none(),
        }
    }

    /// The images for the sources as they are now; builds them when they are not there yet, which takes one to
    /// two minutes and calls `progress` with a line now and then.
    pub fn ready(progress: &dyn Fn(&str)) -> Result<Self, Error> {
        for program in PROGRAMS {
            let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"]
                .iter()
                .any(|dir| Path::new(dir).join(program).exists());
            if !found {
                return Err(Error::Missing { program });
            }
        }
        if !Path::new("/bin/busybox").exists() {
            return Err(Error::Missing { program: "busybox" });
        }
        let root = place::cache();
        fs::create_dir_all(&root).map_err(file("create", &root))?;
        // Two test programs may want them at the same moment: the second waits for the first.
        let lock = root.join("images.lock");
        let guard = File::create(&lock).map_err(file("create", &lock))?;
        guard.lock().map_err(file("lock", &lock))?;

        let dir = root.join(format!("images-{}", fingerprint(&["image", "guest/vm"])?));
        build("image/build.sh", &dir, progress)?;
        Ok(Self {
            vmlinux: dir.join("vmlinux"),
            initramfs: dir.join("initramfs"),
            pi: dir.join("pi.ext4"),
            vm: dir.join("vm.ext4"),
        })
    }
}

/// Has a script of this crate fill a folder, unless it has done so before.
pub(crate) fn build(script: &str, dir: &Path, progress: &dyn Fn(&str)) -> Result<(), Error> {
    if dir.join("complete").exists() {
        return Ok(());
    }
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(file("remove", dir))?;
    }
    fs::create_dir_all(dir).map_err(file("create", dir))?;
    let script = place::source().join(script);
    let log = dir.join("build.log");
    // Only root may make a root file system; the machines themselves need no rights.
    let mut bash = if rustix::process::geteuid().is_root() {
        Command::new("bash")
    } else {
        progress("building images needs root: sudo may ask for your password");
        let mut sudo = Command::new("sudo");
        sudo.arg("bash");
        sudo
    };
    let mut child = bash
        .arg("-c")
        .arg(r#"exec bash "$0" "$1" 2>&1 </dev/null"#)
        .arg(&script)
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(file("run", &script))?;
    let mut last = String::new();
    let mut kept = Vec::new();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(step) = line.strip_prefix("image: ") {
                progress(step);
            }
            kept.extend_from_slice(line.as_bytes());
            kept.push(b'\n');
            last = line;
        }
    }
    fs::write(&log, kept).map_err(file("write", &log))?;
    let status = child.wait().map_err(file("run", &script))?;
    if !status.success() {
        return Err(Error::Build { last });
    }
    let mark = dir.join("complete");
    fs::write(&mark, "").map_err(file("write", &mark))
}

/// Changes with everything in these folders of the crate and with the release of this host, except what the package sources offer: a newer package
/// alone is no reason to build again.
pub(crate) fn fingerprint(dirs: &[&str]) -> Result<String, Error> {
    let mut inputs = vec![PathBuf::from("/etc/os-release")];
    for dir in dirs {
        list(&place::source().join(dir), &mut inputs)?;
    }
    inputs.sort();
    let mut digest = Sha256::new();
    for path in inputs {
        let data = fs::read(&path).map_err(file("read", &path))?;
        let name = path.strip_prefix(place::source()).unwrap_or(&path);
        digest.update(name.as_os_str().as_encoded_bytes());
        digest.update((data.len() as u64).to_le_bytes());
        digest.update(&data);
    }
    Ok(pattern::hex(&digest.finalize()[..6]))
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(file("read", dir))? {
        let entry = entry.map_err(file("read", dir))?;
        let kind = entry.file_type().map_err(file("read", dir))?;
        if kind.is_dir() {
            list(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

pub(crate) fn file(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::File { act, path, source }
}
