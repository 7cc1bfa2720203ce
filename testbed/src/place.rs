//! Where the testbed keeps its files.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder for images and runs: `$TESTBED_DIR`, else `testbed` in cargo's target folder.
#[must_use]
pub fn cache() -> PathBuf {
    if let Some(dir) = env::var_os("TESTBED_DIR") {
        return PathBuf::from(dir);
    }
    target().join("testbed")
}

/// Cargo's target folder, found from the running program, which cargo put there.
#[must_use]
pub fn target() -> PathBuf {
    profile()
        .parent()
        .map_or_else(|| source().join("../target"), Path::to_path_buf)
}

/// The folder of the running program's build profile. Programs lie in it, tests and examples one level below.
fn profile() -> PathBuf {
    let exe = env::current_exe().unwrap_or_default();
    let dir = exe.parent().unwrap_or(Path::new(""));
    let below = dir.ends_with("deps") || dir.ends_with("examples");
    dir.parent().filter(|_| below).unwrap_or(dir).to_path_buf()
}

/// The crate's own sources: the scripts that build images, and the guests' files.
#[must_use]
pub fn source() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files laid over the root of the Pi's image.
#[must_use]
pub fn overlay() -> PathBuf {
    source().join("../overlay")
}

/// The program that runs inside the guests, built beside the running one.
#[must_use]
pub fn agent() -> PathBuf {
    profile().join("testbed-agent")
}

/// Where the benchmark writes its figures.
#[must_use]
pub fn bench() -> PathBuf {
    target().join("bench/results.json")
}

/// The program that measures the portal, built with the running one.
#[must_use]
pub fn portal_bench() -> PathBuf {
    profile().join("examples/portal_bench")
}

/// Where the browser tests leave their pictures.
#[must_use]
pub fn screenshots() -> PathBuf {
    target().join("screenshots")
}

/// The Pi's program, built beside the running one.
#[must_use]
pub fn appliance() -> Option<PathBuf> {
    Some(profile().join("appliance")).filter(|path| path.exists())
}

/// The newest of the VM's packages for this processor in `target/packages`.
#[must_use]
pub fn helper() -> Option<PathBuf> {
    let packages = fs::read_dir(target().join("packages")).ok()?;
    packages
        .filter_map(Result::ok)
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("usbip-vm-helper_") && name.ends_with("_amd64.deb")
        })
        .max_by_key(|entry| entry.metadata().and_then(|meta| meta.modified()).ok())
        .map(|entry| entry.path())
}
