//! Fast enumeration on vhci's ports.

use std::fs;

use crate::root::{Root, names_in};

/// `USB_PORT_QUIRK_OLD_SCHEME | USB_PORT_QUIRK_FAST_ENUM` (include/linux/usb/quirks.h): address
/// first, and 10 ms instead of 50 ms of recovery after a reset. The device has been enumerated on
/// the Pi with the usual care; behind vhci there are no wires that need it again.
const FAST: &str = "3";

/// As the kernel has them.
const CAREFUL: &str = "0";

/// Have the ports of vhci's root hubs enumerate fast, or as usual again. A port that cannot be changed
/// works as before; what somebody else has set on it stays.
pub fn set_fast_enumeration(root: &Root, fast: bool) {
    let (from, to) = if fast {
        (CAREFUL, FAST)
    } else {
        (FAST, CAREFUL)
    };
    let platform = root.path("/sys/devices/platform");
    for controller in names_in(&platform) {
        if !controller.starts_with("vhci_hcd.") {
            continue;
        }
        let controller = platform.join(controller);
        for hub in names_in(&controller) {
            let Some(bus) = hub.strip_prefix("usb") else {
                continue;
            };
            let interface = controller.join(&hub).join(format!("{bus}-0:1.0"));
            for port in names_in(&interface) {
                let file = interface.join(&port).join("quirks");
                let is_other = |now: String| {
                    now.trim().trim_start_matches('0') == from.trim_start_matches('0')
                };
                if port.starts_with(&format!("{hub}-port"))
                    && fs::read_to_string(&file).is_ok_and(is_other)
                {
                    // See above: another pace is all that can come of it.
                    let _ = fs::write(&file, to);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_vhcis_ports_are_changed() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let file = |controller: &str, n: u32| {
            let port = root.path(&format!(
                "/sys/devices/platform/{controller}/usb{n}/{n}-0:1.0/usb{n}-port1"
            ));
            fs::create_dir_all(&port).unwrap();
            fs::write(port.join("quirks"), "00000000\n").unwrap();
            port.join("quirks")
        };
        let (ours, second) = (file("vhci_hcd.0", 3), file("vhci_hcd.1", 5));
        let other = file("dummy_hcd.0", 7);
        set_fast_enumeration(&root, true);
        assert_eq!(fs::read_to_string(&ours).unwrap(), "3");
        assert_eq!(fs::read_to_string(&second).unwrap(), "3");
        assert_eq!(fs::read_to_string(&other).unwrap(), "00000000\n");

        fs::write(&ours, "00000003\n").unwrap();
        fs::write(&second, "00000001\n").unwrap();
        fs::write(&other, "00000003\n").unwrap();
        set_fast_enumeration(&root, false);
        assert_eq!(fs::read_to_string(&ours).unwrap(), "0");
        assert_eq!(fs::read_to_string(&second).unwrap(), "00000001\n");
        assert_eq!(fs::read_to_string(&other).unwrap(), "00000003\n");
    }
}
