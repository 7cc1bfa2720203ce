//! What the product's build left: the Pi's program and the VM's package.

use std::env;
use std::path::PathBuf;

use super::Error;
use crate::place;

/// The Pi's program: `$TESTBED_APPLIANCE`, else `release/appliance` in cargo's target folder.
pub fn appliance() -> Result<PathBuf, Error> {
    let variable = "TESTBED_APPLIANCE";
    let path = env::var_os(variable)
        .map_or_else(|| place::target().join("release/appliance"), PathBuf::from);
    existing("the appliance", path, variable)
}

/// The VM's package: `$TESTBED_HELPER`, else the newest in `packages` of cargo's target folder.
pub fn helper() -> Result<PathBuf, Error> {
    let variable = "TESTBED_HELPER";
    let folder = place::target().join("packages");
    let path = env::var_os(variable)
        .map(PathBuf::from)
        .or_else(place::helper)
        .unwrap_or_else(|| folder.join("usbip-vm-helper_*_amd64.deb"));
    existing("the VM's package", path, variable)
}

fn existing(what: &'static str, path: PathBuf, variable: &'static str) -> Result<PathBuf, Error> {
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::Missing {
        what,
        path: path.display().to_string(),
        variable,
    })
}
