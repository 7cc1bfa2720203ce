//! QEMU's command line for a guest.

use std::path::Path;

use super::{Accel, Role, Spec};
use crate::agent;

/// QEMU's program.
pub(super) const PROGRAM: &str = "qemu-system-x86_64";
/// `usb-redir` and the other devices are plugged below this controller.
pub(crate) const USB_BUS: &str = "xhci.0";
/// Ports of the controller: as many as qemu-xhci can have.
pub(crate) const USB_PORTS: u8 = 15;

/// Arguments for one start. Everything of the run lies in `dir`, which is QEMU's working folder: socket paths are
/// limited to 108 characters, so they are relative.
pub(super) fn arguments(spec: &Spec) -> Vec<String> {
    let role = spec.role;
    let accel = match spec.accel {
        // QEMU before 8.0 translates cmpxchg16b so that flags of nonsense are saved when an interrupt follows at once
        // (target/i386/tcg: its helper reads CC_OP, which is not up to date). The kernel's allocator uses it all the
        // time, and rarely panics of it. Without the feature it takes another way.
        Accel::Tcg => ["-accel", "tcg", "-cpu", "max,-cx16"],
        Accel::Kvm => ["-accel", "kvm", "-cpu", "host"],
    };
    let mut args: Vec<String> = [
        "-name",
        role.name(),
        "-M",
        "q35",
        "-smp",
        "1",
        "-display",
        "none",
    ]
    .into_iter()
    .chain(accel)
    // A reboot of the guest ends QEMU; the next start is a new process, as after a crash.
    .chain(["-nodefaults", "-no-user-config", "-no-reboot"])
    .map(str::to_owned)
    .collect();
    let mut add = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
    add("-m", spec.memory_mib.to_string());
    let (kernel, initramfs) = match &spec.card {
        Some(card) => (&card.vmlinux, &card.initramfs),
        None => (&spec.images.vmlinux, &spec.images.initramfs),
    };
    add("-kernel", path(kernel));
    add("-initrd", path(initramfs));
    add("-append", kernel_command_line(role));
    add(
        "-chardev",
        format!("file,id=console,path={role}.console,append=on"),
    );
    add("-serial", "chardev:console".to_owned());
    add("-qmp", format!("unix:{role}.qmp,server=on,wait=off"));
    add("-device", "virtio-rng-pci".to_owned());
    add("-device", "virtio-serial-pci".to_owned());
    add(
        "-chardev",
        format!("socket,id=agent,path={role}.agent,server=on,wait=off"),
    );
    add(
        "-device",
        format!("virtserialport,chardev=agent,name={}", agent::PORT),
    );

    // The order makes them /dev/vda, vdb and vdc.
    let root = match role {
        Role::Pi => format!("file={},format=raw,readonly=on", path(&spec.images.pi)),
        Role::Vm => "file=vm.qcow2,format=qcow2".to_owned(),
    };
    let mut disks = vec![root, format!("file={role}.payload,format=raw,readonly=on")];
    if role == Role::Pi {
        disks.push("file=pi.data,format=raw".to_owned());
    }
    if spec.card.is_some() {
        disks = vec!["file=card.img,format=raw".to_owned()];
        // As a Pi: with a watchdog, and without a clock of its own.
        add("-device", "i6300esb".to_owned());
        add("-rtc", "base=2001-01-01".to_owned());
    }
    for (index, disk) in disks.iter().enumerate() {
        add("-drive", format!("{disk},if=none,id=disk{index}"));
        add("-device", format!("virtio-blk-pci,drive=disk{index}"));
    }

    // Datagrams over unix sockets: either guest may start, die and come back at any time.
    if spec.card.is_none() {
        let peer = role.peer();
        add(
            "-netdev",
            format!(
                "dgram,id=link,local.type=unix,local.path={role}.net,remote.type=unix,remote.path={peer}.net"
            ),
        );
        add(
            "-device",
            format!(
                "virtio-net-pci,netdev=link,id=nic,mac=52:54:00:09:00:0{}",
                role.address_end()
            ),
        );
    }
    if !spec.forwards.is_empty() {
        let mut nat = "user,id=nat".to_owned();
        for (host, guest) in &spec.forwards {
            nat = format!("{nat},hostfwd=tcp:127.0.0.1:{host}-:{guest}");
        }
        add("-netdev", nat);
        add(
            "-device",
            "virtio-net-pci,netdev=nat,id=door,mac=52:54:00:09:01:01".to_owned(),
        );
    }
    if spec.usb {
        add("-device", format!("qemu-xhci,id=xhci,p2={USB_PORTS},p3=1"));
    }
    args
}

fn kernel_command_line(role: Role) -> String {
    // Writing to /dev/kmsg is not rate-limited, names of interfaces stay eth0 and eth1, and a panic ends QEMU.
    format!(
        "console=ttyS0 quiet panic=-1 printk.devkmsg=on log_buf_len=4M net.ifnames=0 mitigations=off audit=0 \
         testbed.role={role}{}",
        match role {
            Role::Pi => " i6300esb.heartbeat=10",
            Role::Vm => " systemd.show_status=0",
        }
    )
}

fn path(path: &Path) -> String {
    // A comma separates options; doubled it is one.
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::image::Images;

    fn spec(role: Role) -> Spec {
        let file = |name: &str| PathBuf::from("/images").join(name);
        Spec {
            role,
            images: Images {
                vmlinux: file("vmlinux"),
                initramfs: file("initramfs"),
                pi: file("pi.ext4"),
                vm: file("vm.ext4"),
            },
            accel: Accel::Tcg,
            memory_mib: 512,
            forwards: vec![(18080, 8080)],
            usb: role == Role::Pi,
            card: None,
        }
    }

    fn joined(role: Role) -> String {
        arguments(&spec(role)).join(" ")
    }

    #[test]
    fn the_two_ends_of_the_link_name_each_other() {
        assert!(joined(Role::Pi).contains("local.path=pi.net,remote.type=unix,remote.path=vm.net"));
        assert!(joined(Role::Vm).contains("local.path=vm.net,remote.type=unix,remote.path=pi.net"));
    }

    #[test]
    fn the_images_themselves_are_never_written_to() {
        for role in [Role::Pi, Role::Vm] {
            for arg in arguments(&spec(role))
                .iter()
                .filter(|arg| arg.starts_with("file=/images"))
            {
                assert!(arg.contains("readonly=on"), "{arg}");
            }
        }
    }

    #[test]
    fn forwards_are_open_to_this_host_only() {
        assert!(joined(Role::Pi).contains("hostfwd=tcp:127.0.0.1:18080-:8080"));
    }
}
