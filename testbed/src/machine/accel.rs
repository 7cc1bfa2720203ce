//! Whether KVM works on this host: it may be offered and hang.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::{Accel, command, process};
use crate::image::Images;
use crate::place;

/// A guest under a working KVM reaches its first program in about a second.
const PROBE: Duration = Duration::from_secs(10);
/// What the initramfs prints when it is started with `testbed.role=probe`.
const REACHED: &str = "testbed: userspace reached";

/// KVM if a guest under it reaches userspace within ten seconds, TCG otherwise. The answer is kept beside the
/// images.
pub fn probe(images: &Images) -> io::Result<Accel> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accel::Tcg);
    }
    let kept = place::cache().join("accel");
    match fs::read_to_string(&kept).as_deref() {
        Ok("kvm") => return Ok(Accel::Kvm),
        Ok("tcg") => return Ok(Accel::Tcg),
        _ => {}
    }
    let works = boots_under_kvm(images)?;
    fs::write(kept, if works { "kvm" } else { "tcg" })?;
    Ok(if works { Accel::Kvm } else { Accel::Tcg })
}

fn boots_under_kvm(images: &Images) -> io::Result<bool> {
    let console = place::cache().join(format!("probe-{}.console", std::process::id()));
    let mut qemu = process::command(command::PROGRAM);
    qemu.args([
        "-M", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256", "-display", "none",
    ])
    .args(["-nodefaults", "-no-reboot", "-serial"])
    .arg(format!("file:{}", console.display()))
    .arg("-kernel")
    .arg(&images.vmlinux)
    .arg("-initrd")
    .arg(&images.initramfs)
    .args(["-append", "console=ttyS0 quiet panic=-1 testbed.role=probe"])
    .stdin(Stdio::null())
    .stdout(Stdio::null())
    .stderr(Stdio::null());
    let mut child = process::spawn(qemu)?;
    let end = Instant::now() + PROBE;
    let mut reached = false;
    while !reached && Instant::now() < end && matches!(child.try_wait(), Ok(None)) {
        thread::sleep(Duration::from_millis(100));
        reached = fs::read_to_string(&console).is_ok_and(|text| text.contains(REACHED));
    }
    // A hanging guest does not listen; KILL it whatever it does.
    let _ = child.kill();
    let _ = child.wait();
    let _ = fs::remove_file(console);
    Ok(reached)
}
