//! What a device describes, from its `descriptors` file: one read instead of one for each number.
//!
//! usbip-host takes a device's configuration away, and with it the interface directories of sysfs;
//! this file keeps telling what the device is.

/// One interface descriptor, alternate settings included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    /// bConfigurationValue of the configuration it belongs to.
    pub configuration: u8,
    /// bInterfaceNumber
    pub number: u8,
    /// bAlternateSetting
    pub alternate: u8,
    /// bInterfaceClass, bInterfaceSubClass, bInterfaceProtocol
    pub class: [u8; 3],
}

/// The device descriptor, with which the file begins (USB 2.0, table 9-8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Described {
    /// idVendor
    pub vendor: u16,
    /// idProduct
    pub product: u16,
    /// bcdDevice
    pub bcd_device: u16,
    /// bDeviceClass, bDeviceSubClass, bDeviceProtocol
    pub class: [u8; 3],
    /// bNumConfigurations
    pub configurations: u8,
}

/// Descriptor types (USB 2.0, table 9-5).
const DEVICE: u8 = 1;
const CONFIGURATION: u8 = 2;
const INTERFACE: u8 = 4;

/// The device itself; none where the bytes do not begin with it.
#[must_use]
pub fn device(bytes: &[u8]) -> Option<Described> {
    let [18, DEVICE, _, _, class @ .., _, _, _, configurations] = bytes.get(..18)? else {
        return None;
    };
    let [class, subclass, protocol, _, ids @ ..] = class else {
        return None;
    };
    let [v0, v1, p0, p1, d0, d1] = ids else {
        return None;
    };
    Some(Described {
        vendor: u16::from_le_bytes([*v0, *v1]),
        product: u16::from_le_bytes([*p0, *p1]),
        bcd_device: u16::from_le_bytes([*d0, *d1]),
        class: [*class, *subclass, *protocol],
        configurations: *configurations,
    })
}

/// Every interface of every configuration, in the order described.
///
/// `bytes` is the device's own data: lengths that lead nowhere end the reading.
#[must_use]
pub fn interfaces(mut bytes: &[u8]) -> Vec<Interface> {
    let mut found = Vec::new();
    let mut configuration = 0;
    while let [length, kind, rest @ ..] = bytes {
        let length = usize::from(*length);
        if length < 2 || length > bytes.len() {
            break;
        }
        match (*kind, rest) {
            (CONFIGURATION, [_, _, _, value, ..]) if length >= 6 => configuration = *value,
            (INTERFACE, [number, alternate, _, class, subclass, protocol, ..]) if length >= 8 => {
                found.push(Interface {
                    configuration,
                    number: *number,
                    alternate: *alternate,
                    class: [*class, *subclass, *protocol],
                });
            }
            _ => {}
        }
        bytes = &bytes[length..];
    }
    found
}

/// The interfaces of one configuration, each once, by its first setting.
///
/// `active` is bConfigurationValue; with none active (0) the first configuration speaks for the
/// device, which is the one the kernel's generic driver chooses but for a few odd devices.
#[must_use]
pub fn of_configuration(all: &[Interface], active: u8) -> Vec<Interface> {
    let wanted = if active == 0 {
        all.first().map_or(0, |interface| interface.configuration)
    } else {
        active
    };
    let mut chosen: Vec<Interface> = Vec::new();
    for interface in all.iter().filter(|i| i.configuration == wanted) {
        if chosen.iter().all(|known| known.number != interface.number) {
            chosen.push(*interface);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_ftdi_of_qemu() {
        // Captured from QEMU's usb-serial.
        let bytes = [
            0x12, 0x01, 0x00, 0x02, 0x00, 0x00, 0x00, 0x08, 0x03, 0x04, 0x01, 0x60, 0x00, 0x04,
            0x01, 0x02, 0x04, 0x01, 0x09, 0x02, 0x20, 0x00, 0x01, 0x01, 0x00, 0xa0, 0x32, 0x09,
            0x04, 0x00, 0x00, 0x02, 0xff, 0xff, 0xff, 0x00, 0x07, 0x05, 0x81, 0x02, 0x40, 0x00,
            0x00, 0x07, 0x05, 0x02, 0x02, 0x40, 0x00, 0x00,
        ];
        let interface = Interface {
            configuration: 1,
            number: 0,
            alternate: 0,
            class: [0xff; 3],
        };
        let described = Described {
            vendor: 0x0403,
            product: 0x6001,
            bcd_device: 0x0400,
            class: [0; 3],
            configurations: 1,
        };
        assert_eq!(device(&bytes), Some(described));
        assert_eq!(device(&bytes[..17]), None);
        assert_eq!(device(&bytes[18..]), None);
        assert_eq!(interfaces(&bytes), [interface]);
        assert_eq!(of_configuration(&interfaces(&bytes), 0), [interface]);
        assert_eq!(of_configuration(&interfaces(&bytes), 2), []);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = device(&bytes);
            let all = interfaces(&bytes);
            prop_assert!(of_configuration(&all, 0).len() <= all.len());
        }
    }
}
