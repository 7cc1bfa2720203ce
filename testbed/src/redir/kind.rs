//! The catalogue: which devices there are, and what each is made of.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::acm::Acm;
use super::ch341::Ch340;
use super::chip::{Chip, Composite, Part, Plain};
use super::cp210x::Cp2102;
use super::descriptor::{Configuration, Descriptors, INTERRUPT, Speed, Strings};
use super::ftdi::Ftdi;
use super::other::{Ethernet, KEYBOARD_HID, Keyboard, MAC_TEXT, Printer};
use super::storage::Storage;

/// A device that can be plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Silicon Labs CP2102: 10c4:ea60, driver `cp210x`.
    Cp2102,
    /// `WinChipHead` CH340: 1a86:7523, driver `ch341`; has no serial number.
    Ch340,
    /// `WinChipHead` CH9102: 1a86:55d4, driver `cdc_acm`.
    Ch9102,
    /// FTDI FT231X: 0403:6015, driver `ftdi_sio`.
    Ft231x,
    /// FTDI FT2232H: 0403:6010, high speed, two ttys.
    Ft2232,
    /// Arduino Uno: 2341:0043, driver `cdc_acm`, with its serial bootloader.
    Uno,
    /// Arduino Leonardo: 2341:8036, serial and keyboard; a touch at 1200 Bd brings its
    /// bootloader, 2341:0036, for some seconds.
    Leonardo,
    /// ESP32-S3 with its own USB: 303a:1001, serial and JTAG; its ROM is 303a:0009.
    Esp32S3,
    /// ST Nucleo board: 0483:374b, debugger, disk and serial.
    Nucleo,
    /// CDC ECM Ethernet adapter: 0525:a4a2.
    Ethernet,
    /// ASIX Ethernet adapter with a vendor class: 0b95:772b.
    EthernetAsix,
    /// Keyboard at low speed: 046d:c31c.
    Keyboard,
    /// Flash drive: 0951:1666.
    Disk,
    /// Printer: 04b8:0005.
    Printer,
    /// A device with nothing but a vendor class, unknown to Linux: 1209:0001.
    Vendor,
}

/// Which of its faces a device shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Persona {
    /// What the user's program or the chip shows.
    Application,
    /// What the bootloader shows, where that is another device.
    Bootloader,
}

/// No device has this name.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("find device kind {0:?}; known are {known}", known = Kind::ALL.map(Kind::name).join(", "))]
pub struct UnknownKind(String);

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::Cp2102,
        Self::Ch340,
        Self::Ch9102,
        Self::Ft231x,
        Self::Ft2232,
        Self::Uno,
        Self::Leonardo,
        Self::Esp32S3,
        Self::Nucleo,
        Self::Ethernet,
        Self::EthernetAsix,
        Self::Keyboard,
        Self::Disk,
        Self::Printer,
        Self::Vendor,
    ];

    /// The name people type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cp2102 => "cp2102",
            Self::Ch340 => "ch340",
            Self::Ch9102 => "ch9102",
            Self::Ft231x => "ft231x",
            Self::Ft2232 => "ft2232",
            Self::Uno => "uno",
            Self::Leonardo => "leonardo",
            Self::Esp32S3 => "esp32-s3",
            Self::Nucleo => "nucleo",
            Self::Ethernet => "ethernet",
            Self::EthernetAsix => "ethernet-asix",
            Self::Keyboard => "keyboard",
            Self::Disk => "disk",
            Self::Printer => "printer",
            Self::Vendor => "vendor",
        }
    }

    /// Names of the ttys that its Linux driver makes, without numbers: empty for what is not
    /// serial.
    #[must_use]
    pub fn ttys(self) -> &'static [&'static str] {
        match self {
            Self::Cp2102 | Self::Ch340 | Self::Ft231x => &["ttyUSB"],
            Self::Ft2232 => &["ttyUSB", "ttyUSB"],
            Self::Ch9102 | Self::Uno | Self::Leonardo | Self::Esp32S3 | Self::Nucleo => &["ttyACM"],
            Self::Ethernet
            | Self::EthernetAsix
            | Self::Keyboard
            | Self::Disk
            | Self::Printer
            | Self::Vendor => &[],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| UnknownKind(name.into()))
    }
}

/// A pair of bulk endpoints that carries one line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pipe {
    pub(super) input: u8,
    pub(super) output: u8,
}

/// A device put together.
pub(super) struct Model {
    pub(super) descriptors: Descriptors,
    /// One for each line.
    pub(super) pipes: Vec<Pipe>,
    pub(super) chip: Box<dyn Chip>,
}

const VENDOR: [u8; 3] = [0xff, 0xff, 0xff];
const STORAGE: [u8; 3] = [8, 6, 0x50];
const CDC_DATA: [u8; 3] = [10, 0, 0];
/// Abstract control model with AT commands, as most boards say.
const ACM_AT: [u8; 3] = [2, 2, 1];
const ACM_PLAIN: [u8; 3] = [2, 2, 0];
/// Device class of composites with interface associations.
const ASSOCIATED: [u8; 3] = [0xef, 2, 1];
const CDC_DEVICE: [u8; 3] = [2, 0, 0];
const NO_CLASS: [u8; 3] = [0, 0, 0];

fn config(milliamperes: u16) -> Configuration {
    Configuration::new(0x80, milliamperes)
}

/// Adds a serial function: interfaces `first` and the one after.
fn acm(config: Configuration, first: u8, class: [u8; 3], notify: u8, pipe: Pipe) -> Configuration {
    let data = first + 1;
    config
        .interface(first, 0, class, 0)
        // Header (CDC 1.10), ACM capabilities (line coding and break), union, call management.
        .raw(&[
            5, 0x24, 0, 0x10, 1, 4, 0x24, 2, 6, 5, 0x24, 6, first, data, 5, 0x24, 1, 0, data,
        ])
        .endpoint(notify, INTERRUPT, 8, 16)
        .interface(data, 0, CDC_DATA, 0)
        .bulk_pair(pipe.input, pipe.output, 64)
}

/// Identity, class, speed, contents: the parts in the order in which `Descriptors` has them.
fn describe(
    (vendor, product, release): (u16, u16, u16),
    class: [u8; 3],
    speed: Speed,
    configuration: Configuration,
    strings: Strings,
) -> Descriptors {
    Descriptors {
        speed,
        class,
        vendor,
        product,
        release,
        configuration,
        strings,
        more_strings: Vec::new(),
    }
}

fn pipe(input: u8, output: u8) -> Pipe {
    Pipe { input, output }
}

impl Kind {
    /// Puts the device together, with its own texts where `strings` has none.
    pub(super) fn model(self, persona: Persona, strings: &Strings) -> Model {
        let mut model = match (self, persona) {
            (Self::Leonardo, Persona::Bootloader) => bootloader(
                (0x2341, 0x0036, 0x0001),
                Strings::new("Arduino LLC", "Arduino Leonardo", ""),
            ),
            (Self::Esp32S3, Persona::Bootloader) => bootloader(
                (0x303a, 0x0009, 0x0101),
                Strings::new("Espressif", "ESP32-S3", "0"),
            ),
            _ if self.ttys().is_empty() => self.other(),
            _ => self.serial(),
        };
        model.descriptors.strings = strings.or(model.descriptors.strings);
        model
    }

    fn serial(self) -> Model {
        match self {
            Self::Ch340 => {
                let layout = config(98)
                    .interface(0, 0, [0xff, 1, 2], 0)
                    .bulk_pair(0x82, 0x02, 32)
                    .endpoint(0x81, INTERRUPT, 8, 1);
                Model {
                    descriptors: describe(
                        (0x1a86, 0x7523, 0x0264),
                        [0xff, 0, 0],
                        Speed::Full,
                        layout,
                        Strings::new("", "USB Serial", ""),
                    ),
                    pipes: vec![pipe(0x82, 0x02)],
                    chip: Box::new(Ch340::new()),
                }
            }
            Self::Ft231x => ftdi(
                (0x0403, 0x6015, 0x1000),
                Speed::Full,
                &[pipe(0x81, 0x02)],
                Strings::new("FTDI", "FT231X USB UART", "DN000001"),
            ),
            Self::Ft2232 => ftdi(
                (0x0403, 0x6010, 0x0700),
                Speed::High,
                &[pipe(0x81, 0x02), pipe(0x83, 0x04)],
                Strings::new("FTDI", "Dual RS232-HS", "FT000002"),
            ),
            Self::Ch9102 => board(
                (0x1a86, 0x55d4, 0x0443),
                0x83,
                pipe(0x82, 0x02),
                Strings::new("", "USB Single Serial", "58DD029450"),
                Acm::new(0),
            ),
            Self::Uno => board(
                (0x2341, 0x0043, 0x0001),
                0x82,
                pipe(0x83, 0x04),
                Strings::new("Arduino (www.arduino.cc)", "", "75833353035351E0D1B0"),
                Acm::uno(),
            ),
            Self::Leonardo => leonardo(),
            Self::Esp32S3 => esp32_s3(),
            Self::Nucleo => nucleo(),
            _ => Model {
                descriptors: describe(
                    (0x10c4, 0xea60, 0x0100),
                    NO_CLASS,
                    Speed::Full,
                    config(100)
                        .interface(0, 0, [0xff, 0, 0], 2)
                        .bulk_pair(0x82, 0x01, 64),
                    Strings::new(
                        "Silicon Labs",
                        "CP2102 USB to UART Bridge Controller",
                        "0001",
                    ),
                ),
                pipes: vec![pipe(0x82, 0x01)],
                chip: Box::new(Cp2102::new()),
            },
        }
    }

    fn other(self) -> Model {
        let high = |layout: Configuration| layout.bulk_pair(0x82, 0x03, 512);
        let one = |id, speed, layout, strings, chip: Box<dyn Chip>| Model {
            descriptors: describe(id, NO_CLASS, speed, layout, strings),
            pipes: vec![pipe(0x82, 0x03)],
            chip,
        };
        match self {
            Self::Ethernet => ecm(),
            Self::EthernetAsix => one(
                (0x0b95, 0x772b, 0x0001),
                Speed::High,
                high(
                    config(250)
                        .interface(0, 0, [0xff, 0xff, 0], 0)
                        .endpoint(0x81, INTERRUPT, 8, 11),
                ),
                Strings::new("ASIX Elec. Corp.", "AX88772B", "000001"),
                Box::new(Ethernet::asix()),
            ),
            Self::Keyboard => {
                let layout = config(90).interface(0, 0, [3, 1, 1], 0).raw(&KEYBOARD_HID);
                let layout = layout.endpoint(0x81, INTERRUPT, 8, 10);
                let strings = Strings::new("Logitech", "USB Keyboard", "");
                let mut model = one(
                    (0x046d, 0xc31c, 0x6402),
                    Speed::Low,
                    layout,
                    strings,
                    Box::new(Keyboard),
                );
                model.pipes.clear();
                model
            }
            Self::Disk => one(
                (0x0951, 0x1666, 0x0110),
                Speed::High,
                high(config(300).interface(0, 0, STORAGE, 0)),
                Strings::new("Kingston", "DataTraveler 3.0", "0019E06B9C85F9A0"),
                Box::new(Storage::new()),
            ),
            Self::Printer => one(
                (0x04b8, 0x0005, 0x0100),
                Speed::High,
                high(config(2).interface(0, 0, [7, 1, 2], 0)),
                Strings::new("EPSON", "USB Printer", "L72010308"),
                Box::new(Printer),
            ),
            _ => one(
                (0x1209, 0x0001, 0x0100),
                Speed::High,
                high(config(100).interface(0, 0, VENDOR, 0)),
                Strings::new("Test", "Vendor device", "1"),
                Box::new(Plain),
            ),
        }
    }
}

fn ftdi(id: (u16, u16, u16), speed: Speed, pipes: &[Pipe], strings: Strings) -> Model {
    let packet = if speed == Speed::High { 512 } else { 64 };
    let mut layout = config(90);
    for (number, pipe) in (0..).zip(pipes) {
        layout = layout
            .interface(number, 0, VENDOR, 2)
            .bulk_pair(pipe.input, pipe.output, packet);
    }
    Model {
        descriptors: describe(id, NO_CLASS, speed, layout, strings),
        pipes: pipes.to_vec(),
        chip: Box::new(Ftdi::new(usize::from(packet))),
    }
}

/// A board whose only function is serial.
fn board(id: (u16, u16, u16), notify: u8, pipe: Pipe, strings: Strings, chip: Acm) -> Model {
    let layout = acm(config(100), 0, ACM_AT, notify, pipe);
    Model {
        descriptors: describe(id, CDC_DEVICE, Speed::Full, layout, strings),
        pipes: vec![pipe],
        chip: Box::new(chip),
    }
}

fn bootloader(id: (u16, u16, u16), strings: Strings) -> Model {
    board(id, 0x82, pipe(0x83, 0x04), strings, Acm::new(0))
}

fn leonardo() -> Model {
    let serial = pipe(0x83, 0x02);
    let layout = acm(
        config(500).association(0, 2, ACM_PLAIN),
        0,
        ACM_PLAIN,
        0x81,
        serial,
    )
    .interface(2, 0, [3, 0, 0], 0)
    .raw(&KEYBOARD_HID)
    .endpoint(0x84, INTERRUPT, 64, 1);
    let parts = vec![
        Part {
            interfaces: 0..2,
            lines: 0..1,
            chip: Box::new(Acm::leonardo()),
        },
        Part {
            interfaces: 2..3,
            lines: 1..1,
            chip: Box::new(Keyboard),
        },
    ];
    Model {
        descriptors: describe(
            (0x2341, 0x8036, 0x0100),
            ASSOCIATED,
            Speed::Full,
            layout,
            Strings::new("Arduino LLC", "Arduino Leonardo", "HIDPC"),
        ),
        pipes: vec![serial],
        chip: Box::new(Composite(parts)),
    }
}

fn esp32_s3() -> Model {
    let serial = pipe(0x81, 0x01);
    let layout = acm(
        config(500).association(0, 2, ACM_PLAIN),
        0,
        ACM_PLAIN,
        0x82,
        serial,
    )
    .interface(2, 0, [0xff, 0xff, 1], 0)
    .bulk_pair(0x83, 0x02, 64);
    let parts = vec![Part {
        interfaces: 0..2,
        lines: 0..1,
        chip: Box::new(Acm::new(0)),
    }];
    Model {
        descriptors: describe(
            (0x303a, 0x1001, 0x0101),
            ASSOCIATED,
            Speed::Full,
            layout,
            Strings::new(
                "Espressif",
                "USB JTAG/serial debug unit",
                "34:85:18:00:00:01",
            ),
        ),
        pipes: vec![serial],
        chip: Box::new(Composite(parts)),
    }
}

fn nucleo() -> Model {
    let (serial, disk) = (pipe(0x84, 0x04), pipe(0x83, 0x03));
    let layout = config(300)
        .interface(0, 0, VENDOR, 4)
        .bulk_pair(0x81, 0x01, 64)
        .interface(1, 0, STORAGE, 0)
        .bulk_pair(disk.input, disk.output, 64)
        .association(2, 2, ACM_AT);
    let parts = vec![
        Part {
            interfaces: 2..4,
            lines: 0..1,
            chip: Box::new(Acm::new(0)),
        },
        Part {
            interfaces: 1..2,
            lines: 1..2,
            chip: Box::new(Storage::new()),
        },
    ];
    let strings = Strings::new(
        "STMicroelectronics",
        "STM32 STLink",
        "066AFF495451885087171826",
    );
    let layout = acm(layout, 2, ACM_AT, 0x85, serial);
    let mut descriptors = describe(
        (0x0483, 0x374b, 0x0100),
        ASSOCIATED,
        Speed::Full,
        layout,
        strings,
    );
    descriptors.more_strings = vec!["ST-Link Debug".into()];
    Model {
        descriptors,
        pipes: vec![serial, disk],
        chip: Box::new(Composite(parts)),
    }
}

fn ecm() -> Model {
    let frames = pipe(0x82, 0x03);
    let layout = config(250)
        .interface(0, 0, [2, 6, 0], 0)
        // Header, union, Ethernet: string 4 is the address, frames of 1514 bytes.
        .raw(&[5, 0x24, 0, 0x10, 1, 5, 0x24, 6, 0, 1])
        .raw(&[13, 0x24, 0x0f, 4, 0, 0, 0, 0, 0xea, 0x05, 0, 0, 0])
        .endpoint(0x81, INTERRUPT, 16, 9)
        .interface(1, 0, CDC_DATA, 0)
        .interface(1, 1, CDC_DATA, 0)
        .bulk_pair(frames.input, frames.output, 512);
    let strings = Strings::new("Linux", "CDC Ethernet adapter", "1");
    let mut descriptors = describe(
        (0x0525, 0xa4a2, 0x0100),
        CDC_DEVICE,
        Speed::High,
        layout,
        strings,
    );
    descriptors.more_strings = vec![MAC_TEXT.into()];
    Model {
        descriptors,
        pipes: vec![frames],
        chip: Box::new(Ethernet::ecm()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_name() {
        for kind in Kind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        let error = "esp8266".parse::<Kind>().unwrap_err().to_string();
        assert!(error.contains("esp32-s3"), "{error}");
    }

    #[test]
    fn every_configuration_is_a_chain_of_whole_descriptors() {
        for kind in Kind::ALL {
            for persona in [Persona::Application, Persona::Bootloader] {
                let model = kind.model(persona, &Strings::default());
                let bytes = model.descriptors.get(0x0200).unwrap();
                let mut rest = &bytes[..];
                let mut endpoints = Vec::new();
                while let [length, kind, address, ..] = rest {
                    if *kind == 5 {
                        endpoints.push(*address);
                    }
                    rest = &rest[usize::from(*length)..];
                }
                assert!(rest.is_empty(), "{kind}");
                for pipe in &model.pipes {
                    assert!(
                        endpoints.contains(&pipe.input) && endpoints.contains(&pipe.output),
                        "{kind}"
                    );
                }
                endpoints.sort_unstable();
                endpoints.dedup();
                assert_eq!(
                    endpoints.len(),
                    model.descriptors.configuration.endpoints.len(),
                    "{kind}"
                );
                assert!(kind.ttys().len() <= model.pipes.len(), "{kind}");
            }
        }
    }

    #[test]
    fn given_texts_replace_the_chips_own() {
        let given = Strings::new("", "", "42");
        let strings = Kind::Ch340
            .model(Persona::Application, &given)
            .descriptors
            .strings;
        assert_eq!(strings, Strings::new("", "USB Serial", "42"));
    }
}
