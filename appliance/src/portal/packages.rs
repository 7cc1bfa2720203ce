//! The VM's packages that the portal offers, as they lie in a folder.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use sha2::{Digest, Sha256};

/// Where they are on the Pi.
pub const PATH: &str = "/usr/share/usbip-pi/packages";
/// What the names of all of them begin with.
const NAME: &str = "usbip-vm-helper";
/// More than a folder of packages has; the rest is not offered.
const MOST: usize = 32;

/// How a package is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// By dpkg.
    Deb,
    /// By the `install.sh` in it.
    Tarball,
}

/// A file that the portal offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// The file's name, such as `usbip-vm-helper_0.1.0_amd64.deb`.
    pub name: String,
    /// How it is installed.
    pub format: Format,
    /// vm-helper's version.
    pub version: String,
    /// The processor, as Debian calls it: `amd64` or `arm64`.
    pub arch: String,
    /// In bytes.
    pub size: u64,
    /// The SHA-256 of the file, in hex.
    pub sha256: String,
}

/// The folder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Packages {
    folder: Arc<Path>,
    known: Arc<Mutex<HashMap<String, Known>>>,
}

/// A digest, and of which state of the file.
#[derive(Debug)]
struct Known {
    modified: SystemTime,
    size: u64,
    sha256: String,
}

impl Packages {
    /// The packages in this folder; it need not exist.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder: folder.into(),
            known: Arc::default(),
        }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is there of the newest version, by processor and format. Digests are computed once, off
    /// the runtime's thread.
    pub async fn list(&self) -> Vec<Package> {
        let this = self.clone();
        let listed = tokio::task::spawn_blocking(move || this.read()).await;
        match listed {
            Ok(Ok(packages)) => packages,
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Ok(Err(error)) => {
                tracing::error!(folder = %self.folder.display(), %error, "failed to read the packages");
                Vec::new()
            }
            Err(error) => {
                tracing::error!(%error, "failed to read the packages");
                Vec::new()
            }
        }
    }

    fn read(&self) -> io::Result<Vec<Package>> {
        let mut packages = Vec::new();
        for entry in fs::read_dir(&self.folder)?.take(MOST) {
            let entry = entry?;
            let Some((format, version, arch)) = entry.file_name().to_str().and_then(parse) else {
                continue;
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            let meta = fs::metadata(entry.path())?;
            if !meta.is_file() {
                continue;
            }
            packages.push(Package {
                sha256: self.sha256(&name, meta.modified()?, meta.len())?,
                size: meta.len(),
                name,
                format,
                version,
                arch,
            });
        }
        let newest = packages
            .iter()
            .map(|package| numbers(&package.version))
            .max();
        packages.retain(|package| Some(numbers(&package.version)) == newest);
        packages.sort_by(|a, b| (&a.arch, a.format).cmp(&(&b.arch, b.format)));
        Ok(packages)
    }

    fn sha256(&self, name: &str, modified: SystemTime, size: u64) -> io::Result<String> {
        // Held meanwhile, so that two pages do not compute the same.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(name)
            && (known.modified, known.size) == (modified, size)
        {
            return Ok(known.sha256.clone());
        }
        let mut hash = Sha256::new();
        io::copy(
            &mut File::open(self.folder.join(name))?,
            &mut Sink(&mut hash),
        )?;
        let sha256 = hex(&hash.finalize());
        let entry = Known {
            modified,
            size,
            sha256: sha256.clone(),
        };
        known.insert(name.to_owned(), entry);
        Ok(sha256)
    }
}

/// Bytes as hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What is written into it is hashed.
struct Sink<'a>(&'a mut Sha256);

impl io::Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Format, version and processor of a package, by its file's name.
fn parse(file: &str) -> Option<(Format, String, String)> {
    let rest = file.strip_prefix(NAME)?;
    let (format, (version, arch)) = if let Some(rest) = rest.strip_suffix(".deb") {
        (Format::Deb, rest.strip_prefix('_')?.split_once('_')?)
    } else {
        let rest = rest.strip_suffix(".tar.gz")?.strip_prefix('-')?;
        (Format::Tarball, rest.rsplit_once('-')?)
    };
    // These names become words of a shell's command line.
    let plain = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".+~-".contains(&b))
    };
    let known = ["amd64", "arm64"].contains(&arch);
    (plain(version) && known).then(|| (format, version.to_owned(), arch.to_owned()))
}

/// Whether a version is older than another. What is no number counts as zero.
pub(super) fn is_older(version: &str, than: &str) -> bool {
    numbers(version) < numbers(than)
}

fn numbers(version: &str) -> [u64; 3] {
    let mut parts = version.split(['.', '-', '+', '~']);
    std::array::from_fn(|_| parts.next().and_then(|part| part.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_version_is_listed_with_its_digests() {
        let dir = tempfile::tempdir().unwrap();
        let packages = Packages::new(dir.path().join("none"));
        assert_eq!(packages.list().await, []);
        let put = |name: &str, content: &str| fs::write(dir.path().join(name), content).unwrap();
        for name in [
            "usbip-vm-helper_0.9.0_amd64.deb",
            "usbip-vm-helper_0.10.0_arm64.deb",
            "usbip-vm-helper_0.10.0_amd64.deb",
            "usbip-vm-helper-0.10.0-amd64.tar.gz",
            "usbip-vm-helper_0.10.0_riscv64.deb",
            "usbip-vm-helper_$(reboot)_amd64.deb",
            "usbip-vm-helper_0.10.0_amd64.deb.part",
            "SHA256SUMS",
        ] {
            put(name, "abc");
        }
        fs::create_dir(dir.path().join("usbip-vm-helper_9.0.0_amd64.deb")).unwrap();
        let packages = Packages::new(dir.path().into());
        let listed = packages.list().await;
        let names: Vec<_> = listed.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "usbip-vm-helper_0.10.0_amd64.deb",
                "usbip-vm-helper-0.10.0-amd64.tar.gz",
                "usbip-vm-helper_0.10.0_arm64.deb"
            ]
        );
        // FIPS 180-2, B.1
        assert_eq!(
            listed[0].sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        put("usbip-vm-helper_0.10.0_amd64.deb", "another");
        assert_ne!(packages.list().await[0].sha256, listed[0].sha256);
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(is_older("0.9.0", "0.10.0"));
        assert!(is_older("0.1.0", "0.1.1"));
        assert!(!is_older("0.1.0", "0.1.0"));
        assert!(!is_older("1.0.0", "0.10.0"));
        assert!(is_older("", "0.1.0"));
    }
}
