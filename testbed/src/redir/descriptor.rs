//! Builders for USB descriptors (USB 2.0 specification, chapter 9).

use super::wire::{Endpoint, Interface};

/// Transfer type of a bulk endpoint.
pub(super) const BULK: u8 = 2;
/// Transfer type of an interrupt endpoint.
pub(super) const INTERRUPT: u8 = 3;

/// Speed codes of the usbredir protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speed {
    /// 1.5 Mbit/s.
    Low = 0,
    /// 12 Mbit/s.
    Full = 1,
    /// 480 Mbit/s.
    High = 2,
}

/// Longest text that fits a string descriptor, in UTF-16 units.
pub const MAX_STRING_UNITS: usize = 126;

/// What a device says of itself in text, as UTF-16 units, so that tests can send anything a
/// broken or hostile device could: 126 units, markup, lone surrogates. Longer texts are cut at
/// [`MAX_STRING_UNITS`]. `None` leaves what the real chip says, which may be nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strings {
    /// iManufacturer.
    pub manufacturer: Option<Vec<u16>>,
    /// iProduct.
    pub product: Option<Vec<u16>>,
    /// iSerialNumber.
    pub serial: Option<Vec<u16>>,
}

impl Strings {
    /// Three texts as UTF-16; an empty one stands for "none".
    #[must_use]
    pub fn new(manufacturer: &str, product: &str, serial: &str) -> Self {
        let text = |s: &str| (!s.is_empty()).then(|| s.encode_utf16().collect());
        Self {
            manufacturer: text(manufacturer),
            product: text(product),
            serial: text(serial),
        }
    }

    /// These texts, and `rest` where there is none.
    pub(super) fn or(&self, rest: Self) -> Self {
        Self {
            manufacturer: self.manufacturer.clone().or(rest.manufacturer),
            product: self.product.clone().or(rest.product),
            serial: self.serial.clone().or(rest.serial),
        }
    }
}

/// A configuration descriptor under construction, with what the guest's controller is told of it.
#[derive(Debug, Clone)]
pub(super) struct Configuration {
    body: Vec<u8>,
    last_interface: Option<usize>,
    attributes: u8,
    milliamperes: u16,
    pub(super) interfaces: Vec<Interface>,
    pub(super) endpoints: Vec<Endpoint>,
}

impl Configuration {
    /// An empty configuration. `attributes`: bit 7 set, bit 6 self-powered, bit 5 remote wake-up.
    pub(super) fn new(attributes: u8, milliamperes: u16) -> Self {
        Self {
            body: Vec::new(),
            last_interface: None,
            attributes,
            milliamperes,
            interfaces: Vec::new(),
            endpoints: Vec::new(),
        }
    }

    /// Starts an interface; the endpoints that follow belong to it.
    pub(super) fn interface(mut self, number: u8, alt: u8, class: [u8; 3], string: u8) -> Self {
        self.last_interface = Some(self.body.len());
        self.body
            .extend([9, 4, number, alt, 0, class[0], class[1], class[2], string]);
        if alt == 0 {
            self.interfaces.push(Interface { number, class });
        }
        self
    }

    /// An endpoint of the interface started last.
    pub(super) fn endpoint(
        mut self,
        address: u8,
        transfer: u8,
        max_packet: u16,
        interval: u8,
    ) -> Self {
        let size = max_packet.to_le_bytes();
        self.body
            .extend([7, 5, address, transfer, size[0], size[1], interval]);
        if let Some(at) = self.last_interface {
            self.body[at + 4] += 1;
            let interface = self.body[at + 2];
            self.endpoints.push(Endpoint {
                address,
                transfer,
                interval,
                interface,
                max_packet,
            });
        }
        self
    }

    /// A bulk endpoint pair, IN first.
    pub(super) fn bulk_pair(self, input: u8, output: u8, max_packet: u16) -> Self {
        self.endpoint(input, BULK, max_packet, 0)
            .endpoint(output, BULK, max_packet, 0)
    }

    /// An interface association: `count` interfaces from `first` form one function.
    pub(super) fn association(self, first: u8, count: u8, class: [u8; 3]) -> Self {
        self.raw(&[8, 11, first, count, class[0], class[1], class[2], 0])
    }

    /// Class-specific descriptors as they are.
    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.body.extend(bytes);
        self
    }

    /// The whole descriptor.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let total = u16::try_from(9 + self.body.len())
            .unwrap_or(u16::MAX)
            .to_le_bytes();
        let count = u8::try_from(self.interfaces.len()).unwrap_or(u8::MAX);
        // bMaxPower counts in steps of 2 mA.
        let power = u8::try_from(self.milliamperes / 2).unwrap_or(u8::MAX);
        let mut out = vec![
            9,
            2,
            total[0],
            total[1],
            count,
            1,
            0,
            self.attributes,
            power,
        ];
        out.extend(&self.body);
        out
    }
}

/// All that a device tells about itself.
#[derive(Debug, Clone)]
pub(super) struct Descriptors {
    pub(super) speed: Speed,
    pub(super) class: [u8; 3],
    pub(super) vendor: u16,
    pub(super) product: u16,
    /// bcdDevice.
    pub(super) release: u16,
    pub(super) configuration: Configuration,
    pub(super) strings: Strings,
    /// Texts from index 4 on, named by interfaces or class-specific descriptors.
    pub(super) more_strings: Vec<String>,
}

impl Descriptors {
    fn device(&self) -> Vec<u8> {
        let index = |text: &Option<Vec<u16>>, at: u8| if text.is_some() { at } else { 0 };
        // bcdUSB 2.00, 64-byte packets on endpoint 0 (8 at low speed, as the specification asks).
        let mut out = vec![
            18,
            1,
            0x00,
            0x02,
            self.class[0],
            self.class[1],
            self.class[2],
        ];
        out.push(if self.speed == Speed::Low { 8 } else { 64 });
        for field in [self.vendor, self.product, self.release] {
            out.extend(field.to_le_bytes());
        }
        out.extend([
            index(&self.strings.manufacturer, 1),
            index(&self.strings.product, 2),
            index(&self.strings.serial, 3),
            1,
        ]);
        out
    }

    fn string(&self, index: u8) -> Option<Vec<u8>> {
        let units = match index {
            // The only language: US English.
            0 => vec![0x0409],
            1 => self.strings.manufacturer.clone()?,
            2 => self.strings.product.clone()?,
            3 => self.strings.serial.clone()?,
            _ => self
                .more_strings
                .get(usize::from(index) - 4)?
                .encode_utf16()
                .collect(),
        };
        let units = &units[..units.len().min(MAX_STRING_UNITS)];
        let mut out = vec![u8::try_from(2 + 2 * units.len()).unwrap_or(u8::MAX), 3];
        out.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        Some(out)
    }

    /// The answer to GET_DESCRIPTOR for the device, or `None` to stall.
    pub(super) fn get(&self, value: u16) -> Option<Vec<u8>> {
        let [index, kind] = value.to_le_bytes();
        match kind {
            1 => Some(self.device()),
            2 if index == 0 => Some(self.configuration.bytes()),
            3 => self.string(index),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(strings: Strings) -> Descriptors {
        Descriptors {
            speed: Speed::Full,
            class: [0, 0, 0],
            vendor: 0x0403,
            product: 0x6015,
            release: 0x1000,
            configuration: Configuration::new(0x80, 90)
                .interface(0, 0, [255, 255, 255], 2)
                .bulk_pair(0x81, 0x02, 64),
            strings,
            more_strings: vec!["four".into()],
        }
    }

    #[test]
    fn a_configuration_counts_its_bytes_interfaces_and_endpoints() {
        let bytes = device(Strings::default()).get(0x0200).unwrap();
        assert_eq!(bytes[..9], [9, 2, 32, 0, 1, 1, 0, 0x80, 45]);
        assert_eq!(bytes[9..18], [9, 4, 0, 0, 2, 255, 255, 255, 2]);
        assert_eq!(bytes.len(), 32);
    }

    #[test]
    fn missing_texts_have_no_index() {
        let described = device(Strings::new("", "b", ""));
        assert_eq!(described.get(0x0100).unwrap()[14..17], [0, 2, 0]);
        assert_eq!(described.get(0x0302).unwrap(), [4, 3, b'b', 0]);
        assert_eq!(described.get(0x0301), None);
        assert_eq!(described.get(0x0304).unwrap().len(), 10);
        assert_eq!(described.get(0x0305), None);
    }

    #[test]
    fn any_units_go_out_as_they_are_up_to_the_limit() {
        let hostile = vec![0xd800; 300];
        let text = device(Strings {
            serial: Some(hostile),
            ..Strings::default()
        })
        .get(0x0303)
        .unwrap();
        assert_eq!((text.len(), text[0]), (254, 254));
        assert_eq!(text[2..4], [0x00, 0xd8]);
    }
}
