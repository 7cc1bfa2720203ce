//! Every chip that is played: its driver on the VM, and what it says of itself there and on the Pi.

use protocol::line::Attachment;
use testbed::redir::Kind;
use testbed::trial::{Bed, Error, Outcome, Plug};
use testbed::usb::What;

/// The files of sysfs that hold what a device says of itself.
const SAYS: [&str; 5] = ["idVendor", "idProduct", "manufacturer", "product", "serial"];

/// A device, the driver of each of its ttys, and what it must say of itself, `-` for nothing.
type Expected = (What, &'static str, [&'static str; 5]);

fn expected() -> [Expected; 10] {
    [
        (
            Kind::Cp2102.into(),
            "cp210x",
            [
                "10c4",
                "ea60",
                "Silicon Labs",
                "CP2102 USB to UART Bridge Controller",
                "0001",
            ],
        ),
        (
            Kind::Ch340.into(),
            "ch341",
            ["1a86", "7523", "-", "USB Serial", "-"],
        ),
        (
            Kind::Ch9102.into(),
            "cdc_acm",
            ["1a86", "55d4", "-", "USB Single Serial", "58DD029450"],
        ),
        (
            Kind::Ft231x.into(),
            "ftdi_sio",
            ["0403", "6015", "FTDI", "FT231X USB UART", "DN000001"],
        ),
        (
            Kind::Ft2232.into(),
            "ftdi_sio",
            ["0403", "6010", "FTDI", "Dual RS232-HS", "FT000002"],
        ),
        (
            Kind::Uno.into(),
            "cdc_acm",
            [
                "2341",
                "0043",
                "Arduino (www.arduino.cc)",
                "-",
                "75833353035351E0D1B0",
            ],
        ),
        (
            Kind::Leonardo.into(),
            "cdc_acm",
            ["2341", "8036", "Arduino LLC", "Arduino Leonardo", "HIDPC"],
        ),
        (
            Kind::Esp32S3.into(),
            "cdc_acm",
            [
                "303a",
                "1001",
                "Espressif",
                "USB JTAG/serial debug unit",
                "34:85:18:00:00:01",
            ],
        ),
        (
            Kind::Nucleo.into(),
            "cdc_acm",
            [
                "0483",
                "374b",
                "STMicroelectronics",
                "STM32 STLink",
                "066AFF495451885087171826",
            ],
        ),
        (
            What::QemuSerial,
            "ftdi_sio",
            ["0403", "6001", "QEMU", "QEMU USB SERIAL", "TB0001"],
        ),
    ]
}

pub fn all(bed: &Bed) -> Outcome {
    let mut plugged = Vec::new();
    for (what, driver, says) in expected() {
        let serial = (what == What::QemuSerial).then_some("TB0001");
        plugged.push((what, bed.plug_at(what, None, serial)?, driver, says));
    }
    for (what, plug, driver, says) in plugged {
        let attachment = bed.attached(&plug)?;
        shows_itself(bed, &plug, &attachment, says)
            .and_then(|()| ttys(bed, &attachment, driver))
            .and_then(|()| bytes(bed, what, &plug, &attachment))
            .map_err(|error| format!("{what}: {error}"))?;
    }
    Ok(())
}

fn shows_itself(bed: &Bed, plug: &Plug, attachment: &Attachment, says: [&str; 5]) -> Outcome {
    let ask = |busid: &str| {
        format!(
            "cd /sys/bus/usb/devices/{busid} && for f in {}; do cat $f 2>/dev/null || echo -; done",
            SAYS.join(" ")
        )
    };
    let local = attachment
        .local_busid
        .as_ref()
        .ok_or("it has no busid on the VM")?;
    let on_pi = bed.pi().check(&ask(&plug.busid))?;
    let on_vm = bed.vm().check(&ask(local.as_str()))?;
    assert_eq!(
        on_pi.lines().collect::<Vec<_>>(),
        says,
        "{} on the Pi",
        plug.busid
    );
    assert_eq!(
        on_vm.lines().collect::<Vec<_>>(),
        says,
        "{} on the VM",
        plug.busid
    );
    Ok(())
}

fn ttys(bed: &Bed, attachment: &Attachment, driver: &str) -> Outcome {
    for tty in &attachment.ttys {
        let node = &tty.node;
        let class = format!("/sys/class/tty/{}", node.trim_start_matches("/dev/"));
        // A port of usbserial lies below its interface; either way the interface's driver is the chip's.
        let found = bed.vm().check(&format!(
            "d=$(readlink -f {class}/device); [ -e $d/bInterfaceNumber ] || d=${{d%/*}}; basename $(readlink -f $d/driver)"
        ))?;
        assert_eq!(found, driver, "driver of {node}");
        let by_id = tty.by_id.as_ref().ok_or("no link by id")?;
        assert!(by_id.starts_with("/dev/serial/by-id/usb-"), "{by_id}");
        assert_eq!(&bed.vm().check(&format!("readlink -f '{by_id}'"))?, node);
        assert_eq!(bed.vm().check(&format!("stat -c %G {node}"))?, "dialout");
        // An ordinary user of that group.
        bed.vm()
            .check(&format!("runuser -u dev -- sh -c 'exec 3<>{node}'"))?;
    }
    Ok(())
}

fn bytes(bed: &Bed, what: What, plug: &Plug, attachment: &Attachment) -> Outcome {
    if what == What::QemuSerial {
        // QEMU's own converter shows no baud rate; its bytes pass in the machines' test.
        return Ok(());
    }
    let device = bed.device(plug)?;
    for (line, tty) in attachment.ttys.iter().enumerate() {
        bed.pass(&tty.node, &device.line(line), 115_200, 8 << 10)
            .map_err(|error: Error| format!("line {line}: {error}"))?;
    }
    Ok(())
}
