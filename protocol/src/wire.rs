//! The USB/IP handshake (Documentation/usb/usbip_protocol.rst): big-endian, before the socket is
//! handed to the kernel.
//!
//! A request is a [`Header`] and, for an import, a busid; [`Request::decode`] takes the whole of it.
//! Read [`Header::SIZE`] bytes first, then [`Header::request_body_len`] more, and never a byte
//! beyond: what follows belongs to the kernel.

use std::str;

use crate::id::{BUSID_SIZE, BusId, DevId, Speed};

/// Protocol version, `USBIP_VERSION` of the kernel's tools (1.1.1 as binary-coded decimal).
pub const VERSION: u16 = 0x0111;
const OP_REQ_DEVLIST: u16 = 0x8005;
const OP_REP_DEVLIST: u16 = 0x0005;
const OP_REQ_IMPORT: u16 = 0x8003;
const OP_REP_IMPORT: u16 = 0x0003;
/// Ours; the kernel's tools count from 0 (tools/usb/usbip/src/usbip_network.h).
const OP_REQ_NEXT: u16 = 0x8070;
const PATH_SIZE: usize = 256;
/// The most devices taken from a device list; far above any real number.
pub const MAX_DEVICES: u32 = 1024;

/// Status of a reply (`ST_*` in tools/usb/usbip/libsrc/usbip_common.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Request carried out.
    Ok = 0,
    /// Request failed.
    NotAvailable = 1,
    /// The device is imported by someone already.
    DeviceBusy = 2,
    /// The device is in an error state.
    DeviceError = 3,
    /// No such exported device.
    NoDevice = 4,
    /// Unexpected response.
    Error = 5,
}

impl Status {
    /// The status of a code; unknown codes count as [`Status::Error`].
    #[must_use]
    pub fn from_code(code: u32) -> Self {
        [
            Self::Ok,
            Self::NotAvailable,
            Self::DeviceBusy,
            Self::DeviceError,
            Self::NoDevice,
        ]
        .into_iter()
        .find(|status| *status as u32 == code)
        .unwrap_or(Self::Error)
    }
}

/// What is wrong with bytes from the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Other version.
    #[error("the peer speaks USB/IP version {0:#06x}, expected {VERSION:#06x}")]
    Version(u16),
    /// Unknown or unexpected operation code.
    #[error("unexpected operation code {0:#06x}")]
    Code(u16),
    /// Not as many bytes as the message has.
    #[error("message of {got} bytes, expected {expected}")]
    Length {
        /// Bytes that came.
        got: usize,
        /// Bytes that the message has.
        expected: usize,
    },
    /// Busid field without a well-formed, NUL-terminated busid.
    #[error("malformed busid field")]
    BusId,
    /// More devices than [`MAX_DEVICES`].
    #[error("device list of {0} devices")]
    TooManyDevices(u32),
    /// Speed code that no device has.
    #[error("unknown speed code {0}")]
    Speed(u32),
}

/// `op_common`: the first eight bytes of every message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Operation code as it came.
    pub code: u16,
    /// Status code as it came; 0 in requests.
    pub status: u32,
}

impl Header {
    /// Bytes of a header.
    pub const SIZE: usize = 8;

    /// Decode and check the version.
    pub fn decode(bytes: [u8; Self::SIZE]) -> Result<Self, WireError> {
        let [v0, v1, c0, c1, s0, s1, s2, s3] = bytes;
        let version = u16::from_be_bytes([v0, v1]);
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        Ok(Self {
            code: u16::from_be_bytes([c0, c1]),
            status: u32::from_be_bytes([s0, s1, s2, s3]),
        })
    }

    /// How many bytes a request with this header has after it.
    pub fn request_body_len(self) -> Result<usize, WireError> {
        match self.code {
            OP_REQ_DEVLIST | OP_REQ_NEXT => Ok(0),
            OP_REQ_IMPORT => Ok(BUSID_SIZE),
            code => Err(WireError::Code(code)),
        }
    }

    fn encode(self) -> [u8; Self::SIZE] {
        let ([v0, v1], [c0, c1]) = (VERSION.to_be_bytes(), self.code.to_be_bytes());
        let [s0, s1, s2, s3] = self.status.to_be_bytes();
        [v0, v1, c0, c1, s0, s1, s2, s3]
    }
}

/// What an importer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The list of exported devices.
    Devlist,
    /// The same, from a machine that has been running for so many seconds, one at least: what it had
    /// imported before is free. They stand where the stock tools have 0, which no server looks at.
    DevlistAfterBoot(u32),
    /// One device.
    Import(BusId),
    /// The next new device, answered like an import as soon as there is one. Asked of a Pi whose
    /// hello says that it [gives](crate::line::PiHello::gives_next) them.
    Next,
}

impl Request {
    /// Decode the body that follows `header`.
    pub fn decode(header: Header, body: &[u8]) -> Result<Self, WireError> {
        let expected = header.request_body_len()?;
        if body.len() != expected {
            return Err(WireError::Length {
                got: body.len(),
                expected,
            });
        }
        match header.code {
            OP_REQ_DEVLIST if header.status == 0 => Ok(Self::Devlist),
            OP_REQ_DEVLIST => Ok(Self::DevlistAfterBoot(header.status)),
            OP_REQ_NEXT => Ok(Self::Next),
            _ => Ok(Self::Import(busid_field(body)?)),
        }
    }

    /// The bytes to send.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (code, status) = match self {
            Self::Devlist => (OP_REQ_DEVLIST, 0),
            Self::DevlistAfterBoot(seconds) => (OP_REQ_DEVLIST, *seconds),
            Self::Import(_) => (OP_REQ_IMPORT, 0),
            Self::Next => (OP_REQ_NEXT, 0),
        };
        let mut bytes = Header { code, status }.encode().to_vec();
        if let Self::Import(busid) = self {
            put_text(&mut bytes, busid.as_str(), BUSID_SIZE);
        }
        bytes
    }
}

/// An exported device as it stands on the wire (`usbip_usb_device`, 312 bytes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// sysfs path on the exporter, cut to 255 bytes.
    pub path: String,
    /// Name on the exporter.
    pub busid: BusId,
    /// Bus and device number on the exporter.
    pub devid: DevId,
    /// Speed.
    pub speed: Speed,
    /// idVendor
    pub vendor: u16,
    /// idProduct
    pub product: u16,
    /// bcdDevice
    pub bcd_device: u16,
    /// bDeviceClass, bDeviceSubClass, bDeviceProtocol
    pub class: [u8; 3],
    /// bConfigurationValue of the active configuration, 0 for none.
    pub configuration: u8,
    /// bNumConfigurations
    pub configurations: u8,
    /// The interfaces of the active configuration: class, subclass, protocol. Sent in device lists;
    /// an import's reply has only their number.
    pub interfaces: Vec<[u8; 3]>,
}

impl Device {
    /// Bytes of a device without its interfaces.
    pub const SIZE: usize = 312;
    /// Bytes of one interface in a device list.
    pub const INTERFACE_SIZE: usize = 4;

    fn encode(&self, out: &mut Vec<u8>) {
        put_text(out, &self.path, PATH_SIZE);
        put_text(out, self.busid.as_str(), BUSID_SIZE);
        for number in [self.devid.busnum(), self.devid.devnum(), self.speed.code()] {
            out.extend(number.to_be_bytes());
        }
        for number in [self.vendor, self.product, self.bcd_device] {
            out.extend(number.to_be_bytes());
        }
        out.extend(self.class);
        out.extend([
            self.configuration,
            self.configurations,
            self.interface_count(),
        ]);
    }

    fn interface_count(&self) -> u8 {
        u8::try_from(self.interfaces.len()).unwrap_or(u8::MAX)
    }

    /// Decode the fixed part; the second value is the number of interfaces that follow in a list.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<(Self, u8), WireError> {
        let (path, rest) = bytes.split_at(PATH_SIZE);
        let (busid, numbers) = rest.split_at(BUSID_SIZE);
        let u16_at = |at: usize| u16::from_be_bytes([numbers[at], numbers[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) << 16 | u32::from(u16_at(at + 2));
        let speed = u32_at(8);
        let device = Self {
            path: String::from_utf8_lossy(until_nul(path)).into_owned(),
            busid: busid_field(busid)?,
            devid: DevId(u32_at(0) << 16 | u32_at(4) & 0xffff),
            speed: Speed::from_code(speed).ok_or(WireError::Speed(speed))?,
            vendor: u16_at(12),
            product: u16_at(14),
            bcd_device: u16_at(16),
            class: [numbers[18], numbers[19], numbers[20]],
            configuration: numbers[21],
            configurations: numbers[22],
            interfaces: Vec::new(),
        };
        Ok((device, numbers[23]))
    }
}

/// Reply to [`Request::Devlist`].
#[must_use]
pub fn encode_devlist(devices: &[Device]) -> Vec<u8> {
    let mut out = Header {
        code: OP_REP_DEVLIST,
        status: 0,
    }
    .encode()
    .to_vec();
    let count = u32::try_from(devices.len())
        .unwrap_or(MAX_DEVICES)
        .min(MAX_DEVICES);
    out.extend(count.to_be_bytes());
    for device in devices.iter().take(count as usize) {
        device.encode(&mut out);
        for [class, subclass, protocol] in device
            .interfaces
            .iter()
            .take(device.interface_count().into())
        {
            out.extend([*class, *subclass, *protocol, 0]);
        }
    }
    out
}

/// Reply to [`Request::Import`]: the device, or why not.
#[must_use]
pub fn encode_import(result: Result<&Device, Status>) -> Vec<u8> {
    let status = result.err().unwrap_or(Status::Ok) as u32;
    let mut out = Header {
        code: OP_REP_IMPORT,
        status,
    }
    .encode()
    .to_vec();
    if let Ok(device) = result {
        device.encode(&mut out);
    }
    out
}

/// The header of a device list's reply, checked; the number of devices (4 bytes) follows it.
pub fn check_devlist_reply(header: Header) -> Result<Status, WireError> {
    check_reply(header, OP_REP_DEVLIST)
}

/// The header of an import's reply, checked; a device follows it when the status is OK.
pub fn check_import_reply(header: Header) -> Result<Status, WireError> {
    check_reply(header, OP_REP_IMPORT)
}

/// The number of devices in a device list, bounded.
pub fn devlist_count(bytes: [u8; 4]) -> Result<u32, WireError> {
    let count = u32::from_be_bytes(bytes);
    if count > MAX_DEVICES {
        Err(WireError::TooManyDevices(count))
    } else {
        Ok(count)
    }
}

fn check_reply(header: Header, code: u16) -> Result<Status, WireError> {
    if header.code == code {
        Ok(Status::from_code(header.status))
    } else {
        Err(WireError::Code(header.code))
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

fn busid_field(field: &[u8]) -> Result<BusId, WireError> {
    str::from_utf8(until_nul(field))
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(WireError::BusId)
}

/// Append `text` as a NUL-padded field, cut so that one NUL remains.
fn put_text(out: &mut Vec<u8>, text: &str, size: usize) {
    let end = out.len() + size;
    out.extend(text.bytes().take(size - 1));
    out.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn device() -> impl Strategy<Value = Device> {
        let speeds = prop_oneof![
            Just(Speed::Low),
            Just(Speed::Full),
            Just(Speed::High),
            Just(Speed::Super),
            Just(Speed::SuperPlus)
        ];
        (
            ("[/a-z0-9.-]{0,255}", 1u16..200, 1u16..128, speeds),
            any::<(u16, u16, u16, [u8; 3], u8, u8)>(),
            proptest::collection::vec(any::<[u8; 3]>(), 0..32),
        )
            .prop_map(|((path, bus, dev, speed), numbers, interfaces)| Device {
                path,
                busid: format!("{bus}-{dev}").parse().unwrap(),
                devid: DevId::new(bus, dev),
                speed,
                vendor: numbers.0,
                product: numbers.1,
                bcd_device: numbers.2,
                class: numbers.3,
                configuration: numbers.4,
                configurations: numbers.5,
                interfaces,
            })
    }

    fn decode_request(bytes: &[u8]) -> Result<Request, WireError> {
        let (header, body) = bytes.split_first_chunk().unwrap();
        Request::decode(Header::decode(*header)?, body)
    }

    proptest! {
        #[test]
        fn devices_round_trip(device in device()) {
            let bytes = encode_import(Ok(&device));
            let (header, body) = bytes.split_first_chunk().unwrap();
            prop_assert_eq!(check_import_reply(Header::decode(*header).unwrap()), Ok(Status::Ok));
            let (decoded, interfaces) = Device::decode(body.try_into().unwrap()).unwrap();
            prop_assert_eq!(usize::from(interfaces), device.interfaces.len());
            prop_assert_eq!(decoded, Device { interfaces: Vec::new(), ..device });
        }

        #[test]
        fn lists_have_the_length_they_say(devices in proptest::collection::vec(device(), 0..5)) {
            let bytes = encode_devlist(&devices);
            let expected: usize = devices.iter().map(|d| Device::SIZE + Device::INTERFACE_SIZE * d.interfaces.len()).sum();
            prop_assert_eq!(bytes.len(), 12 + expected);
            prop_assert_eq!(devlist_count(bytes[8..12].try_into().unwrap()), Ok(u32::try_from(devices.len()).unwrap()));
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 8..60), device in any::<[u8; 32]>()) {
            let _ = decode_request(&bytes);
            let mut whole = [0u8; Device::SIZE];
            whole[PATH_SIZE..PATH_SIZE + 32].copy_from_slice(&device);
            let _ = Device::decode(&whole);
        }

        #[test]
        fn import_requests_round_trip(bus in 1u16..100, port in 1u16..100) {
            let request = Request::Import(format!("{bus}-{port}").parse().unwrap());
            prop_assert_eq!(decode_request(&request.encode()), Ok(request));
        }
    }

    /// What `usbip list -r` and `usbip attach -b 1-1.4` of usbip-utils 2.0 send, as recorded.
    const STOCK_LIST: [u8; 8] = [0x01, 0x11, 0x80, 0x05, 0, 0, 0, 0];
    const STOCK_ATTACH: [u8; 40] = *b"\x01\x11\x80\x03\0\0\0\0\
        1-1.4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

    #[test]
    fn requests_are_those_of_the_stock_client() {
        assert_eq!(Request::Devlist.encode(), STOCK_LIST);
        assert_eq!(decode_request(&STOCK_LIST), Ok(Request::Devlist));
        for ours in [Request::Next, Request::DevlistAfterBoot(17)] {
            assert_eq!(decode_request(&ours.encode()), Ok(ours));
        }
        let import = Request::Import("1-1.4".parse().unwrap());
        assert_eq!(import.encode(), STOCK_ATTACH);
        assert_eq!(decode_request(&STOCK_ATTACH), Ok(import));
    }

    /// The stock server's words for an FT232 bound to usbip-host, as recorded on Linux 6.12. A bound
    /// device is unconfigured, so it has no interfaces.
    fn stock_device() -> (Device, Vec<u8>) {
        let path = "/sys/devices/pci0000:00/0000:00:05.0/usb1/1-1";
        let mut bytes = path.as_bytes().to_vec();
        bytes.resize(256, 0);
        bytes.extend([b"1-1", &[0; 29][..]].concat());
        bytes.extend(*b"\0\0\0\x01\0\0\0\x02\0\0\0\x02\x04\x03\x60\x01\x04\0\0\0\0\0\x01\0");
        let device = Device {
            path: path.to_owned(),
            busid: "1-1".parse().unwrap(),
            devid: DevId::new(1, 2),
            speed: Speed::Full,
            vendor: 0x0403,
            product: 0x6001,
            bcd_device: 0x0400,
            class: [0; 3],
            configuration: 0,
            configurations: 1,
            interfaces: Vec::new(),
        };
        (device, bytes)
    }

    #[test]
    fn replies_are_those_of_the_stock_server() {
        let (device, bytes) = stock_device();
        let list = [b"\x01\x11\0\x05\0\0\0\0\0\0\0\x01", &*bytes].concat();
        assert_eq!(encode_devlist(std::slice::from_ref(&device)), list);
        let import = [b"\x01\x11\0\x03\0\0\0\0", &*bytes].concat();
        assert_eq!(encode_import(Ok(&device)), import);
        assert_eq!(Device::decode(&bytes.try_into().unwrap()), Ok((device, 0)));
    }

    #[test]
    fn requests_of_another_kind_are_named() {
        let mut bytes = Request::Devlist.encode();
        bytes[1] = 0x06;
        assert_eq!(decode_request(&bytes), Err(WireError::Version(0x0106)));
        assert_eq!(
            decode_request(b"\x01\x11\x80\x07\0\0\0\0"),
            Err(WireError::Code(0x8007))
        );
        assert_eq!(
            decode_request(b"\x01\x11\x80\x03\0\0\0\x001-1"),
            Err(WireError::Length {
                got: 3,
                expected: 32
            })
        );
        let mut import = Request::Import("1-1".parse().unwrap()).encode();
        import[8..].fill(b'1');
        assert_eq!(decode_request(&import), Err(WireError::BusId));
    }
}
