//! What a container on the VM needs to use the ttys, ready to copy.

use maud::{Markup, html};

use super::command;
use crate::manager::{View, view::DeviceState};

/// Stands for a device where none is attached.
const PLACEHOLDER: &str = "/dev/serial/by-id/NAME";

/// The section about containers, with a device that is attached now in its examples.
pub(super) fn section(view: &View) -> Markup {
    let ports = ports(view);
    let port = ports.first().map_or(PLACEHOLDER, String::as_str);
    html! {
        section #containers aria-labelledby="containers-title" {
            h2 #containers-title { "In a container on the VM" }
            p { "Two device rules and " code { "/dev" } " are enough: major 166 is " code { "ttyACM" }
                ", 188 is " code { "ttyUSB" } ". Devices that are plugged in later appear in the running container." }
            @if ports.is_empty() {
                p.quiet { "No device is attached now: put the name of yours in the place of NAME." }
            } @else {
                p { "Attached now:" }
                ul { @for port in &ports { li { code { (port) } } } }
            }
            (way("Docker", &docker(port)))
            (way("Compose", &compose(port)))
            (way("Podman, as root", &format!("sudo {}", docker(port).replacen("docker", "podman", 1))))
            (way("Podman, rootless", &rootless(port)))
            p.quiet { "Rootless, there are no device rules: your own rights on the VM count, so be in the group "
                "that owns the ttys (" code { "dialout" } ", on some distributions " code { "uucp" } ")." }
            (way("LXC, in the container’s configuration", LXC))
            p.quiet { "The ttys are below " code { "/host-dev" } " there, since a container of LXC has a "
                code { "/dev" } " of its own." }
            (way("LXC, unprivileged: in its configuration", LXC_UNPRIVILEGED))
            p { "And once on the VM, so that every user of it may use the ttys:" }
            (command(OPEN_TTYS))
            p.quiet { "The rights of the files decide there. Device rules would only shut out what the container "
                "needs itself, such as " code { "/dev/null" } "." }
            h3 { "What else it gets" }
            p { "With " code { "/dev" } ", Docker, Compose and Podman also give the container the VM’s terminals and "
                "shared memory (" code { "/dev/pts" } ", " code { "/dev/shm" } "): run in it what you trust." }
            h3 { "Why not --privileged" }
            p { "It gives the container every device of the VM, its disks too, and every right of the kernel. "
                "For a tty none of that is needed. It is needed when the container itself loads kernel modules, "
                "mounts disks (a board that is flashed by copying a file to its drive), or runs udev. A tool that speaks USB and no "
                "tty (JTAG, DFU) needs one more rule, " code { "c 189:* rwm" } ", and still no " code { "--privileged" } "." }
        }
    }
}

fn way(title: &str, text: &str) -> Markup {
    html! {
        h3 { (title) }
        (command(text))
    }
}

/// Only itself, since what is mounted below, terminals for example, would be root's there, too.
const LXC: &str = "lxc.cgroup2.devices.allow = c 166:* rwm
lxc.cgroup2.devices.allow = c 188:* rwm
lxc.mount.entry = /dev host-dev none bind,rslave,create=dir 0 0";

/// With what is mounted below: in a user namespace, the kernel refuses to uncover what that hides.
const LXC_UNPRIVILEGED: &str = "lxc.mount.entry = /dev host-dev none rbind,rslave,create=dir 0 0";

/// The VM's users and groups are not the container's.
const OPEN_TTYS: &str = r#"echo 'SUBSYSTEM=="tty", KERNEL=="ttyACM*|ttyUSB*", MODE="0666"' |
  sudo tee /etc/udev/rules.d/99-tty-containers.rules &&
sudo udevadm control --reload && sudo udevadm trigger --subsystem-match=tty"#;

fn docker(port: &str) -> String {
    format!(
        "docker run --rm -it \\
  --device-cgroup-rule 'c 166:* rwm' --device-cgroup-rule 'c 188:* rwm' \\
  -v /dev:/dev:rslave \\
  -v \"$PWD\":/work -w /work IMAGE \\
  pio run -t upload --upload-port {port}"
    )
}

fn compose(port: &str) -> String {
    format!(
        "services:
  firmware:
    image: IMAGE
    device_cgroup_rules:
      - c 166:* rwm
      - c 188:* rwm
    volumes:
      - /dev:/dev:rslave
      - .:/work
    working_dir: /work
    command: pio run -t upload --upload-port {port}"
    )
}

fn rootless(port: &str) -> String {
    format!(
        "podman run --rm -it --group-add keep-groups \\
  --security-opt label=disable -v /dev:/dev:rslave \\
  -v \"$PWD\":/work -w /work IMAGE \\
  pio run -t upload --upload-port {port}"
    )
}

/// The ttys that are attached now, by the name that stays: the by-id link where there is one.
fn ports(view: &View) -> Vec<String> {
    let attached = view
        .devices
        .iter()
        .filter_map(|device| match &device.state {
            DeviceState::Attached { attachment, .. } => attachment.as_ref(),
            _ => None,
        });
    attached
        .flat_map(|attachment| &attachment.ttys)
        .map(|tty| tty.by_id.as_ref().unwrap_or(&tty.node))
        // They come from the VM and go into a command line.
        .filter(|port| is_plain(port))
        .cloned()
        .collect()
}

/// Whether a path is one word of a shell and of YAML; udev's links consist of such characters.
fn is_plain(path: &str) -> bool {
    path.starts_with("/dev/")
        && path.len() < 256
        && path
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/._+@=:-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_go_into_a_command() {
        assert!(is_plain("/dev/ttyUSB0"));
        assert!(is_plain(
            "/dev/serial/by-id/usb-Arduino__www.arduino.cc__0043_85531303-if00"
        ));
        for bad in [
            "",
            "ttyUSB0",
            "/dev/a b",
            "/dev/$(reboot)",
            "/dev/a;b",
            "/dev/a'b",
            "/dev/ü",
        ] {
            assert!(!is_plain(bad), "{bad}");
        }
    }
}
