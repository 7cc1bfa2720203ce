//! The usbredir protocol's packets, encoded and decoded; no I/O.
//!
//! Layouts, packet numbers and status codes are those of the protocol's document,
//! `usb-redirection-protocol.txt` (version 0.7) of the usbredir project. All integers are
//! little-endian. Only what QEMU's `usb-redir` device and this server say to each other has a
//! variant; the rest is carried as [`Packet::Other`].

use thiserror::Error;

/// Bytes of a header with 32-bit packet ids: the form of every `Hello`.
pub const NARROW_HEADER: usize = 12;
/// Bytes of a header with 64-bit packet ids: the form of everything after the `Hello`s.
pub const WIDE_HEADER: usize = 16;
/// Longest body accepted. The guests' largest bulk transfers are far below it.
pub const MAX_BODY: usize = 8 << 20;

/// Capability bits, as numbered in the protocol's document.
pub mod capability {
    /// `DeviceConnect` carries the device's release number.
    pub const CONNECT_DEVICE_VERSION: u32 = 1 << 1;
    /// The guest confirms a `DeviceDisconnect`.
    pub const DISCONNECT_ACK: u32 = 1 << 3;
    /// `EndpointInfo` carries packet sizes.
    pub const MAX_PACKET_SIZE: u32 = 1 << 4;
    /// Headers carry 64-bit ids.
    pub const WIDE_IDS: u32 = 1 << 5;
    /// Bulk packets carry 32-bit lengths.
    pub const WIDE_BULK: u32 = 1 << 6;
}

/// Outcome of a transfer.
pub mod status {
    /// The transfer is complete.
    pub const SUCCESS: u8 = 0;
    /// The guest took the transfer back.
    pub const CANCELLED: u8 = 1;
    /// The endpoint refused.
    pub const STALL: u8 = 4;
}

/// What may be wrong with a packet.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WireError {
    /// The body is shorter than its packet type needs.
    #[error("decode packet of type {kind}: {got} bytes where at least {need} belong")]
    Truncated {
        /// Packet type.
        kind: u32,
        /// Bytes that type needs.
        need: usize,
        /// Bytes present.
        got: usize,
    },
    /// The announced body is longer than [`MAX_BODY`].
    #[error("decode header: a body of {0} bytes is too long")]
    Oversized(u32),
}

/// Start of every packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Packet type.
    pub kind: u32,
    /// Bytes that follow.
    pub length: u32,
    /// Chosen by the guest for each transfer; answers repeat it.
    pub id: u64,
}

impl Header {
    /// Reads a header of [`NARROW_HEADER`] or [`WIDE_HEADER`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let fields = Fields { kind: 0, bytes };
        let header = Self {
            kind: fields.u32(0)?,
            length: fields.u32(4)?,
            id: match bytes.len() {
                ..WIDE_HEADER => u64::from(fields.u32(8)?),
                _ => u64::from(fields.u32(8)?) | u64::from(fields.u32(12)?) << 32,
            },
        };
        if header.length as usize > MAX_BODY {
            return Err(WireError::Oversized(header.length));
        }
        Ok(header)
    }
}

/// Type, class and place of one endpoint, as the guest's controller needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Address with the direction in bit 7.
    pub address: u8,
    /// Transfer type as in an endpoint descriptor: 0 control, 2 bulk, 3 interrupt.
    pub transfer: u8,
    /// bInterval.
    pub interval: u8,
    /// Number of the interface it belongs to.
    pub interface: u8,
    /// wMaxPacketSize, bytes.
    pub max_packet: u16,
}

/// Number and class of one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    /// bInterfaceNumber.
    pub number: u8,
    /// Class, subclass, protocol.
    pub class: [u8; 3],
}

/// One packet without its header.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "fields are named as in the protocol's document"
)]
pub enum Packet {
    /// First packet of either side.
    Hello { version: String, capabilities: u32 },
    /// A device appears.
    DeviceConnect {
        speed: u8,
        class: [u8; 3],
        vendor: u16,
        product: u16,
        release: u16,
    },
    /// The device is gone.
    DeviceDisconnect,
    /// The guest resets the device's port.
    Reset,
    /// The interfaces (32 at most).
    InterfaceInfo(Vec<Interface>),
    /// The endpoints (control endpoint 0 is implied).
    EndpointInfo(Vec<Endpoint>),
    /// SET_CONFIGURATION.
    SetConfiguration { configuration: u8 },
    /// GET_CONFIGURATION.
    GetConfiguration,
    /// Answer to both.
    ConfigurationStatus { status: u8, configuration: u8 },
    /// SET_INTERFACE.
    SetAltSetting { interface: u8, alt: u8 },
    /// GET_INTERFACE.
    GetAltSetting { interface: u8 },
    /// Answer to both.
    AltSettingStatus { status: u8, interface: u8, alt: u8 },
    /// The guest wants what an interrupt endpoint sends.
    StartInterrupt { endpoint: u8 },
    /// The guest no longer wants it.
    StopInterrupt { endpoint: u8 },
    /// Answer to both.
    InterruptStatus { status: u8, endpoint: u8 },
    /// The guest takes back the transfer with this packet's id.
    Cancel,
    /// The guest has seen `DeviceDisconnect`.
    DisconnectAck,
    /// A control transfer or its answer.
    Control {
        endpoint: u8,
        setup: Setup,
        status: u8,
        data: Vec<u8>,
    },
    /// A bulk transfer or its answer.
    Bulk {
        endpoint: u8,
        status: u8,
        length: u32,
        stream: u32,
        data: Vec<u8>,
    },
    /// Data of an interrupt endpoint or its acknowledgement.
    Interrupt {
        endpoint: u8,
        status: u8,
        length: u16,
        data: Vec<u8>,
    },
    /// Anything else.
    Other { kind: u32, body: Vec<u8> },
}

/// The eight bytes that start a control transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    /// bmRequestType: direction in bit 7, type in bits 6..5, recipient in bits 4..0.
    pub request_type: u8,
    /// bRequest.
    pub request: u8,
    /// wValue.
    pub value: u16,
    /// wIndex.
    pub index: u16,
    /// wLength, bytes.
    pub length: u16,
}

impl Setup {
    /// Whether data flows from the device to the guest.
    #[must_use]
    pub fn is_input(&self) -> bool {
        self.request_type & 0x80 != 0
    }
}

/// Endpoint slots of the information packets: 16 out, then 16 in.
const SLOTS: usize = 32;
/// Type of an endpoint slot that is not in use.
const UNUSED: u8 = 255;

fn slot(address: u8) -> usize {
    usize::from(address & 0x0f) | if address & 0x80 == 0 { 0 } else { 16 }
}

impl Packet {
    /// The packet's type number.
    #[must_use]
    pub fn kind(&self) -> u32 {
        match self {
            Self::Hello { .. } => 0,
            Self::DeviceConnect { .. } => 1,
            Self::DeviceDisconnect => 2,
            Self::Reset => 3,
            Self::InterfaceInfo(_) => 4,
            Self::EndpointInfo(_) => 5,
            Self::SetConfiguration { .. } => 6,
            Self::GetConfiguration => 7,
            Self::ConfigurationStatus { .. } => 8,
            Self::SetAltSetting { .. } => 9,
            Self::GetAltSetting { .. } => 10,
            Self::AltSettingStatus { .. } => 11,
            Self::StartInterrupt { .. } => 15,
            Self::StopInterrupt { .. } => 16,
            Self::InterruptStatus { .. } => 17,
            Self::Cancel => 21,
            Self::DisconnectAck => 24,
            Self::Control { .. } => 100,
            Self::Bulk { .. } => 101,
            Self::Interrupt { .. } => 103,
            Self::Other { kind, .. } => *kind,
        }
    }

    /// Header and body, ready to send. `Hello` has the narrow header, all others the wide one.
    #[must_use]
    pub fn encode(&self, id: u64) -> Vec<u8> {
        let body = self.body();
        let mut out = Vec::with_capacity(WIDE_HEADER + body.len());
        out.extend(self.kind().to_le_bytes());
        out.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        if matches!(self, Self::Hello { .. }) {
            out.extend(&id.to_le_bytes()[..4]);
        } else {
            out.extend(id.to_le_bytes());
        }
        out.extend(body);
        out
    }

    fn body(&self) -> Vec<u8> {
        match self {
            Self::Hello {
                version,
                capabilities,
            } => {
                let mut out = version.as_bytes().to_vec();
                out.resize(64, 0);
                out.extend(capabilities.to_le_bytes());
                out
            }
            Self::DeviceConnect {
                speed,
                class,
                vendor,
                product,
                release,
            } => {
                let mut out = vec![*speed, class[0], class[1], class[2]];
                for field in [vendor, product, release] {
                    out.extend(field.to_le_bytes());
                }
                out
            }
            Self::DeviceDisconnect
            | Self::Reset
            | Self::GetConfiguration
            | Self::Cancel
            | Self::DisconnectAck => Vec::new(),
            Self::InterfaceInfo(interfaces) => interface_info(interfaces),
            Self::EndpointInfo(endpoints) => endpoint_info(endpoints),
            Self::SetConfiguration { configuration } => vec![*configuration],
            Self::ConfigurationStatus {
                status,
                configuration,
            } => vec![*status, *configuration],
            Self::SetAltSetting { interface, alt } => vec![*interface, *alt],
            Self::GetAltSetting { interface } => vec![*interface],
            Self::AltSettingStatus {
                status,
                interface,
                alt,
            } => vec![*status, *interface, *alt],
            Self::StartInterrupt { endpoint } | Self::StopInterrupt { endpoint } => vec![*endpoint],
            Self::InterruptStatus { status, endpoint } => vec![*status, *endpoint],
            Self::Control {
                endpoint,
                setup,
                status,
                data,
            } => {
                let mut out = vec![*endpoint, setup.request, setup.request_type, *status];
                for field in [setup.value, setup.index, setup.length] {
                    out.extend(field.to_le_bytes());
                }
                out.extend(data);
                out
            }
            Self::Bulk {
                endpoint,
                status,
                length,
                stream,
                data,
            } => {
                let length = length.to_le_bytes();
                let mut out = Vec::with_capacity(10 + data.len());
                out.extend([*endpoint, *status, length[0], length[1]]);
                out.extend(stream.to_le_bytes());
                out.extend(&length[2..]);
                out.extend(data);
                out
            }
            Self::Interrupt {
                endpoint,
                status,
                length,
                data,
            } => {
                let mut out = vec![*endpoint, *status];
                out.extend(length.to_le_bytes());
                out.extend(data);
                out
            }
            Self::Other { body, .. } => body.clone(),
        }
    }

    /// Reads the body of a packet of type `kind`; bytes beyond what the type needs are ignored.
    pub fn decode(kind: u32, body: &[u8]) -> Result<Self, WireError> {
        let f = Fields { kind, bytes: body };
        Ok(match kind {
            0 => {
                let text = f.slice(0, 64)?;
                let end = text
                    .iter()
                    .position(|&byte| byte == 0)
                    .unwrap_or(text.len());
                Self::Hello {
                    version: String::from_utf8_lossy(&text[..end]).into_owned(),
                    // A peer without any capabilities may leave the words out.
                    capabilities: f.u32(64).unwrap_or(0),
                }
            }
            1 => Self::DeviceConnect {
                speed: f.u8(0)?,
                class: [f.u8(1)?, f.u8(2)?, f.u8(3)?],
                vendor: f.u16(4)?,
                product: f.u16(6)?,
                release: f.u16(8)?,
            },
            2 => Self::DeviceDisconnect,
            3 => Self::Reset,
            4 => decode_interface_info(&f)?,
            5 => decode_endpoint_info(&f)?,
            6 => Self::SetConfiguration {
                configuration: f.u8(0)?,
            },
            7 => Self::GetConfiguration,
            8 => Self::ConfigurationStatus {
                status: f.u8(0)?,
                configuration: f.u8(1)?,
            },
            9 => Self::SetAltSetting {
                interface: f.u8(0)?,
                alt: f.u8(1)?,
            },
            10 => Self::GetAltSetting {
                interface: f.u8(0)?,
            },
            11 => Self::AltSettingStatus {
                status: f.u8(0)?,
                interface: f.u8(1)?,
                alt: f.u8(2)?,
            },
            15 => Self::StartInterrupt { endpoint: f.u8(0)? },
            16 => Self::StopInterrupt { endpoint: f.u8(0)? },
            17 => Self::InterruptStatus {
                status: f.u8(0)?,
                endpoint: f.u8(1)?,
            },
            21 => Self::Cancel,
            24 => Self::DisconnectAck,
            100 => Self::Control {
                endpoint: f.u8(0)?,
                setup: Setup {
                    request: f.u8(1)?,
                    request_type: f.u8(2)?,
                    value: f.u16(4)?,
                    index: f.u16(6)?,
                    length: f.u16(8)?,
                },
                status: f.u8(3)?,
                data: body[10..].to_vec(),
            },
            101 => Self::Bulk {
                endpoint: f.u8(0)?,
                status: f.u8(1)?,
                length: u32::from(f.u16(2)?) | u32::from(f.u16(8)?) << 16,
                stream: f.u32(4)?,
                data: body[10..].to_vec(),
            },
            103 => Self::Interrupt {
                endpoint: f.u8(0)?,
                status: f.u8(1)?,
                length: f.u16(2)?,
                data: body[4..].to_vec(),
            },
            _ => Self::Other {
                kind,
                body: body.to_vec(),
            },
        })
    }
}

fn interface_info(interfaces: &[Interface]) -> Vec<u8> {
    let listed = &interfaces[..interfaces.len().min(SLOTS)];
    let mut out = u32::try_from(listed.len())
        .unwrap_or(0)
        .to_le_bytes()
        .to_vec();
    out.resize(4 + 4 * SLOTS, 0);
    for (i, interface) in listed.iter().enumerate() {
        out[4 + i] = interface.number;
        for (column, byte) in interface.class.iter().enumerate() {
            out[4 + (column + 1) * SLOTS + i] = *byte;
        }
    }
    out
}

fn decode_interface_info(f: &Fields<'_>) -> Result<Packet, WireError> {
    f.slice(0, 4 + 4 * SLOTS)?;
    let count = usize::try_from(f.u32(0)?).unwrap_or(SLOTS).min(SLOTS);
    let mut interfaces = Vec::with_capacity(count);
    for i in 4..4 + count {
        let class = [f.u8(i + SLOTS)?, f.u8(i + 2 * SLOTS)?, f.u8(i + 3 * SLOTS)?];
        interfaces.push(Interface {
            number: f.u8(i)?,
            class,
        });
    }
    Ok(Packet::InterfaceInfo(interfaces))
}

fn endpoint_info(endpoints: &[Endpoint]) -> Vec<u8> {
    let mut out = vec![UNUSED; SLOTS];
    out.resize(5 * SLOTS, 0);
    // Endpoint 0 exists in both directions on every device, with packets of 64 bytes.
    let control = |address| Endpoint {
        address,
        transfer: 0,
        interval: 0,
        interface: 0,
        max_packet: 64,
    };
    for endpoint in [control(0), control(0x80)].iter().chain(endpoints) {
        let i = slot(endpoint.address);
        out[i] = endpoint.transfer;
        out[SLOTS + i] = endpoint.interval;
        out[2 * SLOTS + i] = endpoint.interface;
        out[3 * SLOTS + 2 * i..][..2].copy_from_slice(&endpoint.max_packet.to_le_bytes());
    }
    out
}

fn decode_endpoint_info(f: &Fields<'_>) -> Result<Packet, WireError> {
    let mut endpoints = Vec::new();
    for i in 0..SLOTS {
        let endpoint = Endpoint {
            address: u8::try_from(i % 16 + if i < 16 { 0 } else { 0x80 }).unwrap_or(0),
            transfer: f.u8(i)?,
            interval: f.u8(SLOTS + i)?,
            interface: f.u8(2 * SLOTS + i)?,
            max_packet: f.u16(3 * SLOTS + 2 * i)?,
        };
        if endpoint.transfer != UNUSED && i % 16 != 0 {
            endpoints.push(endpoint);
        }
    }
    Ok(Packet::EndpointInfo(endpoints))
}

/// Little-endian fields of a body, each read checked.
struct Fields<'a> {
    kind: u32,
    bytes: &'a [u8],
}

impl Fields<'_> {
    fn slice(&self, at: usize, length: usize) -> Result<&[u8], WireError> {
        self.bytes.get(at..at + length).ok_or(WireError::Truncated {
            kind: self.kind,
            need: at + length,
            got: self.bytes.len(),
        })
    }

    fn u8(&self, at: usize) -> Result<u8, WireError> {
        Ok(self.slice(at, 1)?[0])
    }

    fn u16(&self, at: usize) -> Result<u16, WireError> {
        let b = self.slice(at, 2)?;
        Ok(u16::from_le_bytes([b[0], b[1]]))
    }

    fn u32(&self, at: usize) -> Result<u32, WireError> {
        let b = self.slice(at, 4)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..200)
    }

    fn packets() -> impl Strategy<Value = Packet> {
        let setup = any::<(u8, u8, u16, u16, u16)>().prop_map(
            |(request_type, request, value, index, length)| Setup {
                request_type,
                request,
                value,
                index,
                length,
            },
        );
        prop_oneof![
            ("[a-z0-9. ]{0,63}", any::<u32>()).prop_map(|(version, capabilities)| Packet::Hello {
                version,
                capabilities
            }),
            any::<(u8, [u8; 3], u16, u16, u16)>().prop_map(
                |(speed, class, vendor, product, release)| {
                    Packet::DeviceConnect {
                        speed,
                        class,
                        vendor,
                        product,
                        release,
                    }
                }
            ),
            prop::collection::vec(any::<(u8, [u8; 3])>(), 0..=32).prop_map(|list| {
                Packet::InterfaceInfo(
                    list.into_iter()
                        .map(|(number, class)| Interface { number, class })
                        .collect(),
                )
            }),
            Just(Packet::Reset),
            Just(Packet::Cancel),
            any::<(u8, u8)>().prop_map(|(interface, alt)| Packet::SetAltSetting { interface, alt }),
            (any::<u8>(), setup, any::<u8>(), bytes()).prop_map(
                |(endpoint, setup, status, data)| Packet::Control {
                    endpoint,
                    setup,
                    status,
                    data
                }
            ),
            (any::<(u8, u8, u32, u32)>(), bytes()).prop_map(
                |((endpoint, status, length, stream), data)| {
                    Packet::Bulk {
                        endpoint,
                        status,
                        length,
                        stream,
                        data,
                    }
                }
            ),
            (any::<(u8, u8, u16)>(), bytes()).prop_map(|((endpoint, status, length), data)| {
                Packet::Interrupt {
                    endpoint,
                    status,
                    length,
                    data,
                }
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(packet in packets(), id in any::<u32>()) {
            let sent = packet.encode(u64::from(id));
            let size = if packet.kind() == 0 { NARROW_HEADER } else { WIDE_HEADER };
            let header = Header::decode(&sent[..size]).unwrap();
            prop_assert_eq!(header.id, u64::from(id));
            prop_assert_eq!(header.length as usize, sent.len() - size);
            prop_assert_eq!(Packet::decode(header.kind, &sent[size..]).unwrap(), packet);
        }

        #[test]
        fn odd_bytes_are_refused_or_read_but_never_panic(kind in 0u32..110, body in bytes()) {
            let _ = Packet::decode(kind, &body);
            let _ = Header::decode(&body);
        }
    }

    #[test]
    fn a_connect_packet_has_the_documented_bytes() {
        let packet = Packet::DeviceConnect {
            speed: 1,
            class: [0xff, 0, 0],
            vendor: 0x1a86,
            product: 0x7523,
            release: 0x0264,
        };
        let expected = [
            1, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0x86, 0x1a, 0x23, 0x75,
            0x64, 2,
        ];
        assert_eq!(packet.encode(0), expected);
    }

    #[test]
    fn a_long_bulk_transfer_splits_its_length_around_the_stream() {
        let packet = Packet::Bulk {
            endpoint: 0x81,
            status: 0,
            length: 0x0003_4567,
            stream: 0,
            data: vec![],
        };
        assert_eq!(
            packet.encode(0)[16..],
            [0x81, 0, 0x67, 0x45, 0, 0, 0, 0, 3, 0]
        );
    }

    #[test]
    fn endpoints_take_the_slot_of_their_direction() {
        let listed = vec![
            Endpoint {
                address: 0x02,
                transfer: 2,
                interval: 0,
                interface: 0,
                max_packet: 512,
            },
            Endpoint {
                address: 0x81,
                transfer: 3,
                interval: 10,
                interface: 1,
                max_packet: 8,
            },
        ];
        let sent = Packet::EndpointInfo(listed.clone()).encode(0);
        assert_eq!(
            (
                sent[16],
                sent[16 + 2],
                sent[16 + 16],
                sent[16 + 17],
                sent[16 + 18]
            ),
            (0, 2, 0, 3, 255)
        );
        assert_eq!(
            Packet::decode(5, &sent[16..]),
            Ok(Packet::EndpointInfo(listed))
        );
    }

    #[test]
    fn a_huge_body_is_refused_by_its_header() {
        let header = [101, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        assert_eq!(Header::decode(&header), Err(WireError::Oversized(u32::MAX)));
    }
}
