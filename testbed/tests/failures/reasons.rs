//! Each thing that can be set up wrong has a sentence of its own, with a remedy, and is forgotten once mended.

use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::machine::Role;
use testbed::redir::Kind;
use testbed::trial::{Bed, Error, Outcome, Undo, wait_until};

/// Something that keeps the Pi from its session.
struct Obstacle {
    /// Where it is put up.
    on: Role,
    make: &'static str,
    mend: &'static str,
    /// The failure's kind.
    kind: &'static str,
    /// What the sentence says.
    says: &'static str,
}

/// Each is put up before the one before it is taken away, so that each attempt at a session meets one.
const OBSTACLES: [Obstacle; 8] = [
    Obstacle {
        on: Role::Pi,
        make: "cd /etc/usbip && cp vm.conf vm.conf.good && echo 'VM_HOST=10.9.0.2 and so on' >vm.conf",
        mend: "",
        kind: "config",
        says: "/etc/usbip/vm.conf, line 1: ",
    },
    Obstacle {
        on: Role::Pi,
        make: "echo VM_HOST=-oProxyCommand=reboot >/etc/usbip/vm.conf",
        mend: "",
        kind: "config",
        says: "is no host",
    },
    Obstacle {
        on: Role::Pi,
        make: "echo VM_HOST=vm.invalid >/etc/usbip/vm.conf",
        mend: "cd /etc/usbip && mv vm.conf.good vm.conf",
        kind: "name",
        says: "vm.invalid has no address",
    },
    Obstacle {
        on: Role::Vm,
        make: "systemctl stop ssh",
        mend: "systemctl start ssh",
        kind: "unreachable",
        says: "10.9.0.2 port 22 refuses connections",
    },
    Obstacle {
        on: Role::Vm,
        make: "cd /etc/ssh && mkdir good && mv ssh_host_ed25519_key* good/ && \
               ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key",
        mend: "cd /etc/ssh && mv good/* . && rmdir good && systemctl restart ssh",
        kind: "host_key_changed",
        says: "is not the one that was pinned",
    },
    Obstacle {
        on: Role::Vm,
        make: "cd /home/dev/.ssh && cp -p authorized_keys good && : >authorized_keys",
        mend: "cd /home/dev/.ssh && mv good authorized_keys",
        kind: "login",
        says: "does not let the Pi log in as dev",
    },
    Obstacle {
        on: Role::Vm,
        make: "mv /etc/sudoers.d/usbip /root/",
        mend: "mv /root/usbip /etc/sudoers.d/",
        kind: "sudo",
        says: "does not let dev run usb-event-handler as root",
    },
    Obstacle {
        on: Role::Vm,
        make: "mv /usr/bin/vm-helper /root/",
        mend: "mv /root/vm-helper /usr/bin/",
        kind: "helper",
        says: "usb-event-handler is not installed",
    },
];

/// Waits until the failure below `failure` of the Pi's view says what it should, and has a remedy.
fn told(
    what: &str,
    says: &str,
    mut failure: impl FnMut() -> Result<Value, Error>,
) -> Result<(), Error> {
    wait_until(&format!("word of {what}"), || {
        let failure = failure().map_err(|error| error.to_string())?;
        let message = failure["message"].as_str().unwrap_or_default();
        let remedy = failure["remedy"].as_str().unwrap_or_default();
        if message.contains(says) && !remedy.is_empty() {
            eprintln!("{message}\n    remedy: {remedy}");
            return Ok(());
        }
        Err(failure.to_string())
    })
}

pub fn session(bed: &Bed) -> Outcome {
    let plug = bed.plug(Kind::Cp2102)?;
    let attachment = bed.attached(&plug)?;
    let mut before = None;
    for obstacle in &OBSTACLES {
        let machine = bed.pair.machine(obstacle.on);
        machine.check(obstacle.make)?;
        let mend = Undo {
            machine,
            command: obstacle.mend.to_owned(),
        };
        // Takes the one before away.
        drop(before.replace(mend));
        told(obstacle.kind, obstacle.says, || {
            let session = bed.view()?["session"].clone();
            let failure = session["failure"].clone();
            Ok(if failure["kind"] == obstacle.kind {
                failure
            } else {
                session
            })
        })?;
    }
    drop(before);
    bed.session()?;
    // What is attached is none of the session's business.
    assert_eq!(bed.attached(&plug)?, attachment);
    bed.pass(&attachment.ttys[0].node, &bed.device(&plug)?, 115_200, 4096)?;
    Ok(())
}

fn device_told(bed: &Bed, busid: &str, says: &str) -> Result<(), Error> {
    told(busid, says, || {
        let seen = bed.device_view(busid)?.unwrap_or_default();
        Ok(if seen["state"] == "failed" {
            seen
        } else {
            Value::Null
        })
    })
}

pub fn vhci_missing(bed: &Bed) -> Outcome {
    let folder = bed.vm().check("dirname $(modinfo -n vhci_hcd)")?;
    let mend = Undo {
        machine: bed.vm(),
        command: format!("mv /root/vhci-hcd.ko* {folder}/ && depmod -a"),
    };
    // As on a kernel without it: modprobe does not know it either. The file goes first, since the Pi may ask for the
    // ports at any moment, which loads the module.
    bed.vm().check(&format!(
        "mv {folder}/vhci-hcd.ko* /root/ && depmod -a && rmmod vhci_hcd"
    ))?;
    let plug = bed.plug(Kind::Cp2102)?;
    device_told(bed, &plug.busid, "vhci_hcd")?;
    drop(mend);
    let begin = Instant::now();
    bed.attached(&plug)?;
    eprintln!("attached {:.1?} after it was mended", begin.elapsed());
    Ok(())
}

pub fn port_blocked(bed: &Bed) -> Outcome {
    // What goes to the Pi's port 3240 goes to a machine that is not there, as with a firewall that drops it.
    let mend = Undo {
        machine: bed.vm(),
        command: "ip rule del table 100; ip route flush table 100".to_owned(),
    };
    bed.vm().check(
        "ip neigh replace 10.9.0.99 lladdr 02:00:00:00:00:99 dev eth0 && \
         ip route add 10.9.0.1 via 10.9.0.99 table 100 && \
         ip rule add to 10.9.0.1 ipproto 6 dport 3240 table 100",
    )?;
    let plug = bed.plug(Kind::Cp2102)?;
    device_told(bed, &plug.busid, "port 3240")?;
    drop(mend);
    let begin = Instant::now();
    bed.attached(&plug)?;
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(45), "{took:?}");
    Ok(())
}
