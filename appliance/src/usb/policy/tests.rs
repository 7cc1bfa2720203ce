use proptest::prelude::*;

use super::*;

fn judge(id: (u16, u16), device_class: u8, classes: &[[u8; 3]]) -> Verdict {
    let interfaces: Vec<_> = (0..)
        .zip(classes)
        .map(|(number, class)| Interface {
            configuration: 1,
            number,
            alternate: 0,
            class: *class,
        })
        .collect();
    verdict(&Facts {
        vendor: id.0,
        product: id.1,
        device_class,
        interfaces: &interfaces,
        configuration: 1,
        usage: &Usage::default(),
        on_vhci: false,
    })
}

const VENDOR: [u8; 3] = [0xff, 0, 0];
const ACM: [u8; 3] = [2, 2, 1];
const DATA: [u8; 3] = [10, 0, 0];
const HID: [u8; 3] = [3, 0, 0];
const KEYBOARD: [u8; 3] = [3, 1, 1];
const DISK: [u8; 3] = [8, 6, 0x50];

#[test]
#[rustfmt::skip] // a table
fn serial_devices_are_exported() {
    for (name, id, device_class, classes, driver) in [
        ("CP2102", (0x10c4, 0xea60), 0, &[VENDOR][..], "cp210x"),
        ("CP2105", (0x10c4, 0xea70), 0, &[VENDOR, VENDOR], "cp210x"),
        ("CH340", (0x1a86, 0x7523), 0xff, &[[0xff, 1, 2]], "ch341"),
        ("CH341", (0x1a86, 0x5523), 0xff, &[[0xff, 1, 2]], "ch341"),
        ("CH9102", (0x1a86, 0x55d4), 2, &[ACM, DATA], "cdc_acm"),
        ("FT232R", (0x0403, 0x6001), 0, &[[0xff; 3]], "ftdi_sio"),
        ("FT2232", (0x0403, 0x6010), 0, &[[0xff; 3]; 2], "ftdi_sio"),
        ("Uno", (0x2341, 0x0043), 2, &[ACM, DATA], "cdc_acm"),
        ("Leonardo", (0x2341, 0x8036), 0xef, &[ACM, DATA, HID], "cdc_acm"),
        ("ESP32-S3", (0x303a, 0x1001), 0xef, &[[2, 2, 0], DATA, [0xff, 0xff, 1]], "cdc_acm"),
        ("its ROM", (0x303a, 0x0009), 0, &[[2, 2, 0], DATA], "cdc_acm"),
        ("Nucleo", (0x0483, 0x374b), 0xef, &[[0xff; 3], DISK, [2, 2, 1], DATA], "cdc_acm"),
        ("Pico", (0x2e8a, 0x000a), 0xef, &[ACM, DATA, VENDOR], "cdc_acm"),
    ] {
        let expected = Verdict::Export(format!("{driver} serial"));
        assert_eq!(judge(id, device_class, classes), expected, "{name}");
    }
}

#[test]
fn an_ftdi_with_jtag_is_taken_for_its_serial_interface() {
    // ftdi_sio takes interface 1 of this one only.
    let id = (0x0403, 0x7150);
    assert!(judge(id, 0, &[[0xff; 3], [0xff; 3]]).exports());
    assert!(!judge(id, 0, &[[0xff; 3]]).exports());
}

#[test]
#[rustfmt::skip] // a table
fn everything_else_says_why_not() {
    let ecm = [2, 6, 0];
    for (name, id, device_class, classes, reason) in [
        ("Pi 3's network port", (0x0424, 0xec00), 0xff, &[VENDOR][..], "an Ethernet adapter (smsc95xx)"),
        ("Pi 3B+'s network port", (0x0424, 0x7800), 0xff, &[VENDOR], "an Ethernet adapter (lan78xx)"),
        ("RTL8153", (0x0bda, 0x8153), 0, &[VENDOR], "an Ethernet adapter (r8152)"),
        ("AX88179", (0x0b95, 0x1790), 0, &[[0xff, 0xff, 0]], "an Ethernet adapter (ax88179_178a)"),
        ("ECM and serial", (0x1234, 0x5678), 0, &[ACM, DATA, ecm, DATA], "an Ethernet adapter (CDC ECM)"),
        ("NCM", (0x1234, 0x5678), 0, &[[2, 13, 0], DATA], "an Ethernet adapter (CDC NCM)"),
        ("EEM", (0x1234, 0x5678), 0, &[[2, 12, 7]], "an Ethernet adapter (CDC EEM)"),
        ("MBIM", (0x1234, 0x5678), 0, &[[2, 14, 0], DATA], "an Ethernet adapter (CDC MBIM)"),
        ("RNDIS", (0x1234, 0x5678), 0, &[[0xe0, 1, 3], DATA], "an Ethernet adapter (RNDIS)"),
        ("RNDIS as ACM", (0x1234, 0x5678), 2, &[[2, 2, 0xff], DATA], "an Ethernet adapter (RNDIS)"),
        ("a CP2102 with ECM", (0x10c4, 0xea60), 0, &[VENDOR, ecm], "an Ethernet adapter (CDC ECM)"),
        ("hub", (0x2109, 0x3431), 9, &[[9, 0, 0]], "a hub: what is plugged into it is exported, not the hub"),
        ("keyboard", (0x046d, 0xc31c), 0, &[KEYBOARD, HID], "only a keyboard, mouse or other input device, no serial port"),
        ("stick", (0x0781, 0x5567), 0, &[DISK], "only a disk, no serial port"),
        ("PL2303", (0x067b, 0x2303), 0, &[VENDOR], "pl2303 devices are not supported yet"),
        ("Exar, which cdc_acm leaves alone", (0x04e2, 0x1410), 2, &[ACM, DATA], "xr_serial devices are not supported yet"),
        ("webcam", (0x1234, 0x5678), 0xef, &[[14, 1, 0], [14, 2, 0]], "no serial driver knows 1234:5678"),
        ("no interface", (0x1234, 0x5678), 0, &[], "no serial driver knows 1234:5678"),
    ] {
        let never = ["an Ethernet adapter", "a hub"];
        let expected = if never.iter().any(|start| reason.starts_with(start)) {
            Verdict::Refuse(reason.to_owned())
        } else {
            Verdict::Skip(reason.to_owned())
        };
        assert_eq!(judge(id, device_class, classes), expected, "{name}");
    }
}

#[test]
fn an_ethernet_function_in_another_configuration_counts() {
    let interface = |configuration, class| Interface {
        configuration,
        number: 0,
        alternate: 0,
        class,
    };
    let facts = Facts {
        vendor: 0x1234,
        product: 0x5678,
        device_class: 0,
        interfaces: &[interface(1, ACM), interface(2, [2, 6, 0])],
        configuration: 1,
        usage: &Usage::default(),
        on_vhci: false,
    };
    assert!(!verdict(&facts).exports());
}

#[test]
fn what_is_attached_here_is_not_exported_again() {
    let interfaces = [];
    let facts = Facts {
        vendor: 0x10c4,
        product: 0xea60,
        device_class: 0,
        interfaces: &interfaces,
        configuration: 1,
        usage: &Usage::default(),
        on_vhci: true,
    };
    let reason = "itself attached over USB/IP".to_owned();
    assert_eq!(verdict(&facts), Verdict::Refuse(reason));
}

fn ethernet_class() -> impl Strategy<Value = [u8; 3]> {
    prop_oneof![
        any::<u8>().prop_map(|protocol| [2, 6, protocol]),
        any::<u8>().prop_map(|protocol| [2, 12, protocol]),
        any::<u8>().prop_map(|protocol| [2, 13, protocol]),
        any::<u8>().prop_map(|protocol| [2, 14, protocol]),
        Just([0xe0, 1, 3]),
        Just([2, 2, 0xff]),
    ]
}

proptest! {
    #[test]
    fn nothing_with_an_ethernet_function_is_ever_exported(
        id in prop_oneof![
            any::<(u16, u16)>(),
            prop::sample::select(vec![(0x10c4, 0xea60), (0x1a86, 0x7523), (0x0403, 0x6001), (0x303a, 0x1001)]),
        ],
        device_class: u8,
        ethernet in ethernet_class(),
        mut classes in prop::collection::vec(prop_oneof![any::<[u8; 3]>(), Just(ACM), Just(DATA)], 0..8),
        at: prop::sample::Index,
    ) {
        classes.insert(at.index(classes.len() + 1), ethernet);
        prop_assert!(!judge(id, device_class, &classes).exports());
    }

    #[test]
    fn nothing_that_this_pi_uses_is_ever_exported(
        network in prop::option::of("eth[0-9]"),
        mounted in prop::option::of("sd[a-z]1"),
    ) {
        let usage = Usage { network, mounted };
        let used = usage != Usage::default();
        let interfaces = [];
        let facts = Facts {
            vendor: 0x10c4,
            product: 0xea60,
            device_class: 0,
            interfaces: &interfaces,
            configuration: 1,
            usage: &usage,
            on_vhci: false,
        };
        prop_assert_eq!(verdict(&facts).exports(), !used);
    }
}
