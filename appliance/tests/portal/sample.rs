//! Made-up views.

use appliance::{
    manager::{
        Identity, Ruling, Scope, View,
        view::{AliasView, DeviceState, DeviceView, HoldView, RuleView, SessionView},
    },
    usb::{StubStatus, UsbDevice, Verdict},
    vm::{self, FailureKind, Pairing},
};
use protocol::{
    DevId, Speed,
    line::{Attachment, Tty, VmHello},
};

/// Nothing plugged in, nothing paired.
pub fn empty() -> View {
    View {
        pairing: None,
        session: SessionView::NotPaired,
        devices: Vec::new(),
        vhci_ports: None,
        aliases: Vec::new(),
        rules: Vec::new(),
        holds: Vec::new(),
    }
}

/// Paired and connected, without devices.
pub fn connected() -> View {
    View {
        pairing: Some(Pairing {
            host: "build-vm.local".into(),
            user: "dev".into(),
        }),
        session: SessionView::Up {
            hello: VmHello {
                protocol: 1,
                version: "0.1.0".into(),
                boot_id: "0d3b2c1a-0000-4000-8000-1234567890ab".into(),
                host_name: "build-vm".into(),
                address: None,
                capabilities: Vec::new(),
            },
        },
        vhci_ports: Some((5, 8)),
        devices: Vec::new(),
        aliases: Vec::new(),
        rules: Vec::new(),
        holds: Vec::new(),
    }
}

/// A session that failed in this way.
pub fn down(kind: FailureKind, message: &str, remedy: Option<&str>) -> View {
    View {
        session: SessionView::Down {
            failure: Some(vm::Failure {
                kind,
                message: message.into(),
                remedy: remedy.map(Into::into),
            }),
        },
        ..connected()
    }
}

/// A CP2102 that is on its way.
pub fn device(busid: &str, name: &str) -> DeviceView {
    let facts = UsbDevice {
        busid: busid.parse().unwrap(),
        devid: DevId(0x0001_0004),
        speed: Speed::Full,
        vendor: 0x10c4,
        product: 0xea60,
        bcd_device: 0x0100,
        class: [0, 0, 0],
        configuration: 1,
        configurations: 1,
        interfaces: vec![[0xff, 0, 0]],
        manufacturer: Some("Silicon Labs".into()),
        product_name: Some(name.into()),
        serial: Some("7c98a2b0e11f".into()),
        port_path: "platform/soc/usb:1.4".into(),
        driver: Some("usbip-host".into()),
        stub: Some(StubStatus::Available),
        verdict: Verdict::Export("cp210x serial".into()),
    };
    DeviceView {
        identity: Identity::of(&facts),
        scope: Scope::lasting(&facts),
        facts,
        state: DeviceState::Attaching,
        plug_to_tty_ms: None,
        attached_at_ms: None,
        alias: None,
        links: Vec::new(),
        rule: None,
        power_failure: None,
        can_be_held: true,
    }
}

/// The same, attached with these ttys.
pub fn attached(busid: &str, name: &str, ttys: &[(&str, &str)], driver: &str) -> DeviceView {
    let mut device = device(busid, name);
    device.facts.stub = Some(StubStatus::Used);
    device.plug_to_tty_ms = Some(418);
    device.attached_at_ms = Some(0);
    device.state = DeviceState::Attached {
        attachment: Some(Attachment {
            busid: device.facts.busid.clone(),
            devid: device.facts.devid,
            port: 0,
            local_busid: None,
            ttys: ttys
                .iter()
                .map(|(node, by_id)| Tty {
                    node: (*node).into(),
                    by_id: Some(format!("/dev/serial/by-id/{by_id}")),
                    driver: Some(driver.into()),
                })
                .collect(),
            timings: None,
        }),
        silent: false,
    };
    device
}

fn alias(name: &str, scope: Scope, busid: Option<&str>) -> AliasView {
    AliasView {
        alias: name.parse().unwrap(),
        scope,
        busid: busid.map(|busid| busid.parse().unwrap()),
    }
}

/// A device in each state.
pub fn every_state() -> View {
    let mut silent = attached(
        "1-1.2",
        "Arduino Uno",
        &[(
            "/dev/ttyACM0",
            "usb-Arduino__www.arduino.cc__0043_85531303-if00",
        )],
        "cdc_acm",
    );
    if let DeviceState::Attached { silent, .. } = &mut silent.state {
        *silent = true;
    }
    let with = |busid: &str, name: &str, state: DeviceState| DeviceView {
        state,
        ..device(busid, name)
    };
    let mut hub = with(
        "1-1",
        "USB2.0 Hub",
        DeviceState::Skipped {
            why: "a hub; what is plugged into it is listed by itself".into(),
        },
    );
    hub.facts.verdict = Verdict::Refuse("a hub".into());
    hub.facts.manufacturer = None;
    hub.facts.serial = None;
    let mut ethernet = with(
        "1-1.1",
        "10/100/1000 LAN",
        DeviceState::Skipped {
            why: "a network adapter: giving it away could cut the Pi off".into(),
        },
    );
    ethernet.facts.verdict = Verdict::Refuse("a network adapter".into());
    ethernet.facts.manufacturer = Some("Realtek".into());
    let mut named = attached(
        "1-1.3",
        "Dual RS232-HS",
        &[
            ("/dev/ttyUSB0", "usb-FTDI_Dual_RS232-HS_FT7K2Q-if00-port0"),
            ("/dev/ttyUSB1", "usb-FTDI_Dual_RS232-HS_FT7K2Q-if01-port0"),
        ],
        "ftdi_sio",
    );
    named.facts.serial = Some("FT7K2Q".into());
    named.scope = Scope::Serial("FT7K2Q".into());
    named.alias = Some("bench-jtag".parse().unwrap());
    named.links = vec![
        "/dev/usb-pi/bench-jtag".into(),
        "/dev/usb-pi/bench-jtag-1".into(),
    ];
    let rule = RuleView {
        scope: Scope::Product(0x10c4, 0xea60),
        ruling: Ruling::Export,
    };
    named.rule = Some(rule.clone());
    View {
        aliases: vec![
            alias("bench-jtag", Scope::Serial("FT7K2Q".into()), Some("1-1.3")),
            alias("weather", Scope::Port("platform/soc/usb:1.4.2".into()), None),
        ],
        rules: vec![rule],
        holds: vec![HoldView {
            scope: Scope::Serial("A50285BI".into()),
            busid: None,
        }],
        devices: vec![
            hub,
            ethernet,
            silent,
            named,
            with("1-1.4", "CP2102N USB to UART Bridge Controller", DeviceState::Attaching),
            with("1-2", "USB JTAG/serial debug unit", DeviceState::Bound { held: true }),
            with("1-3", "USB Serial", DeviceState::Bound { held: false }),
            with(
                "1-4",
                "FT232R USB UART",
                DeviceState::Failed {
                    message: "the VM has no driver for this device: the kernel module ftdi_sio is missing".into(),
                    remedy: Some("on the VM: sudo apt install linux-modules-extra-$(uname -r)".into()),
                    next_try_ms: 42_000,
                },
            ),
            with(
                "1-5",
                "USB2.0-Serial",
                DeviceState::Failed {
                    message: "failed to bind to usbip-host: No such device".into(),
                    remedy: None,
                    next_try_ms: 0,
                },
            ),
        ],
        ..connected()
    }
}
