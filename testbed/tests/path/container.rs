//! A container on the VM: a root, mounts, a network and a control group of its own; `/dev` is the host's, mounted
//! rslave; of its devices, the majors 166 (ttyACM) and 188 (ttyUSB) are allowed, and what every container has (null,
//! zero, random, tty, pts).

use testbed::machine::{self, Output};
use testbed::redir::Kind;
use testbed::trial::{Bed, Error, Outcome};

const UNIT: &str = "box.service";
/// Its root on the VM.
pub const ROOT: &str = "/var/lib/box";

/// A container that runs until this is dropped.
pub struct Container<'a> {
    bed: &'a Bed,
    pid: String,
}

impl<'a> Container<'a> {
    pub fn start(bed: &'a Bed) -> Result<Self, Error> {
        let vm = bed.vm();
        vm.check(&format!(
            "mkdir -p {ROOT} && cd {ROOT} && mkdir -p usr etc dev proc sys run tmp && \
             for link in bin sbin lib lib64; do ln -sfn usr/$link $link; done"
        ))?;
        vm.check(&format!(
            "systemd-run --quiet --collect --unit={UNIT} --service-type=exec \
             -p RootDirectory={ROOT} -p MountAPIVFS=yes -p BindReadOnlyPaths='/usr /etc' -p BindPaths=/dev:/dev:rbind \
             -p MountFlags=slave -p PrivateNetwork=yes -p DevicePolicy=closed \
             -p 'DeviceAllow=char-166 rwm' -p 'DeviceAllow=char-188 rwm' /bin/sleep infinity"
        ))?;
        let pid = vm.check(&format!("systemctl show --value -p MainPID {UNIT}"))?;
        Ok(Self { bed, pid })
    }

    /// Runs a command in the container, whose output and exit code come back.
    pub fn sh(&self, command: &str) -> Result<Output, machine::Error> {
        let script = format!("{ROOT}/tmp/command");
        self.bed
            .vm()
            .put(&script, 0o755, format!("#!/bin/sh\n{command}\n").as_bytes())?;
        // Into its group first: that is what decides on devices.
        self.bed.vm().sh(&format!(
            "echo $$ >/sys/fs/cgroup/system.slice/{UNIT}/cgroup.procs && \
             exec nsenter --target {} --mount --net --root --wd=/ /tmp/command",
            self.pid
        ))
    }

    /// As [`Self::sh`]; it must succeed.
    pub fn check(&self, command: &str) -> Result<String, Box<dyn std::error::Error>> {
        let output = self.sh(command)?;
        if output.code == Some(0) {
            Ok(output.stdout.trim_end().to_owned())
        } else {
            Err(format!("in the container, '{command}' failed: {output:?}").into())
        }
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // At the end of the run it goes with the VM anyway.
        let _ = self.bed.vm().sh(&format!("systemctl stop {UNIT}"));
    }
}

/// Sends a word to a device that echoes, and reads it back.
fn echo(node: &str) -> String {
    format!(
        "stty -F {node} raw -echo 115200 && exec 3<>{node} && printf hello >&3 && timeout 20 head -c 5 <&3"
    )
}

pub fn opens_ttys_only(bed: &Bed) -> Outcome {
    let early = bed.plug(Kind::Cp2102)?;
    bed.device(&early)?.set_echo(true);
    let early = bed.attached(&early)?.ttys.remove(0).node;
    let container = Container::start(bed)?;
    let mount = container.check("grep ' /dev ' /proc/self/mountinfo")?;
    assert!(
        mount.contains(" master:") && !mount.contains(" shared:"),
        "{mount}"
    );
    assert_eq!(container.check(&echo(&early))?, "hello");

    // Plugged in after the container started, of either major.
    for kind in [Kind::Ft231x, Kind::Ch9102] {
        let late = bed.plug(kind)?;
        bed.device(&late)?.set_echo(true);
        let node = bed.attached(&late)?.ttys.remove(0).node;
        assert_eq!(container.check(&echo(&node))?, "hello", "{kind}");
    }

    // Everything else is refused there, and only there.
    for other in ["/dev/kmsg", "/dev/vda"] {
        let refused = container.sh(&format!("exec 3<{other}"))?;
        assert_ne!(refused.code, Some(0));
        assert!(
            refused.stderr.contains("Operation not permitted"),
            "{refused:?}"
        );
        bed.vm().check(&format!("exec 3<{other}"))?;
    }
    Ok(())
}
