//! One plugged-in device as the guest sees it: packets in, packets out, no I/O.

use std::collections::VecDeque;

use super::chip::Answer;
use super::descriptor::Strings;
use super::kind::{Kind, Model, Persona};
use super::lines::{Event, Lines};
use super::wire::{Packet, Setup, status};

/// Transfers that may wait at once; a guest's controller keeps far fewer under way.
const MAX_WAITING: usize = 4096;

/// Packets to send, each with the id of the transfer it answers.
pub(super) type Replies = Vec<(u64, Packet)>;

/// A bulk transfer that cannot be completed yet.
#[derive(Debug)]
struct Waiting {
    id: u64,
    endpoint: u8,
    /// Bytes wanted by the guest.
    length: u32,
    /// Bytes from the guest.
    data: Vec<u8>,
}

/// A device and all that it keeps between packets.
pub(super) struct Board {
    kind: Kind,
    persona: Persona,
    strings: Strings,
    model: Model,
    pub(super) lines: Lines,
    waiting: VecDeque<Waiting>,
    /// Whether the guest has reset the port since the device was announced. Until then packets
    /// are left over from the device before it.
    awake: bool,
    configuration: u8,
    /// Alternate settings chosen, by interface; all others are 0.
    settings: Vec<(u8, u8)>,
}

impl Board {
    pub(super) fn new(kind: Kind, strings: Strings) -> Self {
        let model = kind.model(Persona::Application, &strings);
        let lines = Lines::new(model.pipes.len());
        Self {
            kind,
            persona: Persona::Application,
            strings,
            model,
            lines,
            waiting: VecDeque::new(),
            awake: false,
            configuration: 0,
            settings: Vec::new(),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn persona(&self) -> Persona {
        self.persona
    }

    pub(super) fn flash(&self) -> Option<&[u8]> {
        self.model.chip.flash()
    }

    /// Changes which face the device will show when it is announced next.
    pub(super) fn become_persona(&mut self, persona: Persona) {
        if self.persona != persona {
            self.persona = persona;
            self.model = self.kind.model(persona, &self.strings);
        }
    }

    /// What announces the device to the guest.
    pub(super) fn connect(&mut self) -> Replies {
        self.power_off();
        let d = &self.model.descriptors;
        let packets = [
            Packet::InterfaceInfo(d.configuration.interfaces.clone()),
            Packet::EndpointInfo(d.configuration.endpoints.clone()),
            Packet::DeviceConnect {
                speed: d.speed as u8,
                class: d.class,
                vendor: d.vendor,
                product: d.product,
                release: d.release,
            },
        ];
        self.lines.record(Event::Connected {
            vendor: d.vendor,
            product: d.product,
        });
        packets.into_iter().map(|packet| (0, packet)).collect()
    }

    /// The device was pulled, or QEMU is gone.
    pub(super) fn disconnect(&mut self, event: Event) {
        self.power_off();
        self.lines.record(event);
    }

    fn power_off(&mut self) {
        self.waiting.clear();
        self.awake = false;
        self.configuration = 0;
        self.settings.clear();
        self.lines.power_off();
        self.lines.change = None;
    }

    /// Takes a packet of the guest and returns what it is to be answered with.
    pub(super) fn handle(&mut self, id: u64, packet: Packet) -> Replies {
        if let Packet::Reset = packet {
            self.awake = true;
            self.configuration = 0;
            self.lines.record(Event::Reset);
            return Vec::new();
        }
        if !self.awake {
            return Vec::new();
        }
        let reply = match packet {
            Packet::SetConfiguration { configuration } => {
                self.configuration = configuration;
                self.settings.clear();
                self.lines.record(Event::Configured(configuration));
                Packet::ConfigurationStatus {
                    status: status::SUCCESS,
                    configuration,
                }
            }
            Packet::GetConfiguration => Packet::ConfigurationStatus {
                status: status::SUCCESS,
                configuration: self.configuration,
            },
            Packet::SetAltSetting { interface, alt } => {
                self.settings.retain(|(number, _)| *number != interface);
                self.settings.push((interface, alt));
                self.lines.record(Event::AltSetting { interface, alt });
                Packet::AltSettingStatus {
                    status: status::SUCCESS,
                    interface,
                    alt,
                }
            }
            Packet::GetAltSetting { interface } => {
                let chosen = self
                    .settings
                    .iter()
                    .find(|(number, _)| *number == interface);
                let alt = chosen.map_or(0, |(_, alt)| *alt);
                Packet::AltSettingStatus {
                    status: status::SUCCESS,
                    interface,
                    alt,
                }
            }
            Packet::StartInterrupt { endpoint } | Packet::StopInterrupt { endpoint } => {
                Packet::InterruptStatus {
                    status: status::SUCCESS,
                    endpoint,
                }
            }
            // Interrupt OUT, such as a keyboard's LEDs.
            Packet::Interrupt {
                endpoint, length, ..
            } => Packet::Interrupt {
                endpoint,
                status: status::SUCCESS,
                length,
                data: Vec::new(),
            },
            Packet::Control {
                endpoint,
                setup,
                data,
                ..
            } => self.control(endpoint, setup, &data),
            Packet::Bulk {
                endpoint,
                length,
                data,
                ..
            } => {
                return self.bulk(Waiting {
                    id,
                    endpoint,
                    length,
                    data,
                });
            }
            Packet::Cancel => return self.cancel(id),
            _ => return Vec::new(),
        };
        let mut replies = vec![(id, reply)];
        // A request may have made the board speak.
        replies.extend(self.progress());
        replies
    }

    fn control(&mut self, endpoint: u8, mut setup: Setup, data: &[u8]) -> Packet {
        let answer = self.request(setup, data);
        let mut reply = Vec::new();
        let mut outcome = status::SUCCESS;
        match answer {
            Answer::Data(bytes) => {
                reply = bytes;
                reply.truncate(usize::from(setup.length));
                // No longer than wLength, which has 16 bits.
                setup.length = u16::try_from(reply.len()).unwrap_or(setup.length);
            }
            Answer::Done => {}
            Answer::Stall => {
                outcome = status::STALL;
                setup.length = 0;
            }
        }
        Packet::Control {
            endpoint,
            setup,
            status: outcome,
            data: reply,
        }
    }

    fn request(&mut self, setup: Setup, data: &[u8]) -> Answer {
        const STANDARD: u8 = 0x00;
        if setup.request_type & 0x60 == STANDARD {
            let recipient = setup.request_type & 0x1f;
            return match (setup.is_input(), setup.request, recipient) {
                // GET_DESCRIPTOR: of the device, or of an interface's class
                (true, 6, 0) => self
                    .model
                    .descriptors
                    .get(setup.value)
                    .map_or(Answer::Stall, Answer::Data),
                (true, 6, 1) => self.model.chip.request(setup, data, &mut self.lines),
                // GET_STATUS
                (true, 0, _) => Answer::Data(vec![0, 0]),
                // CLEAR_FEATURE, SET_FEATURE: halts and remote wake-up, of which there are none.
                (false, 1 | 3, _) => Answer::Done,
                _ => Answer::Stall,
            };
        }
        let answer = self.model.chip.request(setup, data, &mut self.lines);
        let stalled = answer == Answer::Stall;
        self.lines.record(Event::Request {
            setup,
            data: data.to_vec(),
            stalled,
        });
        answer
    }

    fn bulk(&mut self, transfer: Waiting) -> Replies {
        if self.waiting.len() >= MAX_WAITING {
            return vec![(transfer.id, answer(&transfer, status::STALL, 0, Vec::new()))];
        }
        self.waiting.push_back(transfer);
        self.progress()
    }

    fn cancel(&mut self, id: u64) -> Replies {
        let Some(at) = self.waiting.iter().position(|transfer| transfer.id == id) else {
            // Completed already: the guest takes that answer for this one.
            return Vec::new();
        };
        let cancelled = self.waiting.remove(at);
        cancelled
            .map(|t| (id, answer(&t, status::CANCELLED, 0, Vec::new())))
            .into_iter()
            .collect()
    }

    /// Completes what can be completed, each endpoint in order.
    pub(super) fn progress(&mut self) -> Replies {
        let mut replies = Replies::new();
        // What is taken from the guest may be what it waits for (echo, bootloader, disk).
        let (input, output): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|t| t.endpoint & 0x80 != 0);
        for transfer in output {
            let line = self
                .model
                .pipes
                .iter()
                .position(|p| p.output == transfer.endpoint);
            // Order holds without more ado: once a line is full, it is so for all that follows.
            if line.is_some_and(|line| !self.lines.has_room(line)) {
                self.waiting.push_back(transfer);
                continue;
            }
            if let Some(line) = line {
                self.model
                    .chip
                    .output(line, &transfer.data, &mut self.lines);
            }
            replies.push((
                transfer.id,
                answer(&transfer, status::SUCCESS, transfer.length, Vec::new()),
            ));
        }
        for transfer in input {
            match self.input(&transfer) {
                Some(data) => {
                    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
                    replies.push((
                        transfer.id,
                        answer(&transfer, status::SUCCESS, length, data),
                    ));
                }
                None => self.waiting.push_back(transfer),
            }
        }
        replies
    }

    fn input(&mut self, transfer: &Waiting) -> Option<Vec<u8>> {
        let line = self
            .model
            .pipes
            .iter()
            .position(|p| p.input == transfer.endpoint)?;
        let queue = &mut self.lines.get_mut(line)?.to_guest;
        self.model
            .chip
            .input(line, usize::try_from(transfer.length).ok()?, queue)
    }
}

fn answer(transfer: &Waiting, status: u8, length: u32, data: Vec<u8>) -> Packet {
    Packet::Bulk {
        endpoint: transfer.endpoint,
        status,
        length,
        stream: 0,
        data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn awake(kind: Kind) -> Board {
        let mut board = Board::new(kind, Strings::default());
        board.connect();
        assert!(
            board.handle(1, Packet::GetConfiguration).is_empty(),
            "left-overs are ignored"
        );
        board.handle(0, Packet::Reset);
        board
    }

    fn bulk_in(length: u32) -> Packet {
        Packet::Bulk {
            endpoint: 0x83,
            status: 0,
            length,
            stream: 0,
            data: vec![],
        }
    }

    fn bulk_out(data: &[u8]) -> Packet {
        let length = u32::try_from(data.len()).unwrap();
        Packet::Bulk {
            endpoint: 0x04,
            status: 0,
            length,
            stream: 0,
            data: data.to_vec(),
        }
    }

    #[test]
    fn reads_wait_for_bytes_and_take_them_in_order() {
        let mut board = awake(Kind::Uno);
        assert_eq!(board.handle(1, bulk_in(4)), []);
        assert_eq!(board.handle(2, bulk_in(4)), []);
        board.lines.send(0, b"abcdef");
        let replies: Vec<_> = board
            .progress()
            .into_iter()
            .map(|(id, packet)| match packet {
                Packet::Bulk { data, .. } => (id, data),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(replies, [(1, b"abcd".to_vec()), (2, b"ef".to_vec())]);
    }

    #[test]
    fn a_cancelled_read_is_answered_once_and_loses_nothing() {
        let mut board = awake(Kind::Uno);
        board.handle(1, bulk_in(64));
        let replies = board.handle(1, Packet::Cancel);
        assert!(matches!(
            replies[..],
            [(
                1,
                Packet::Bulk {
                    status: status::CANCELLED,
                    ..
                }
            )]
        ));
        assert_eq!(board.handle(1, Packet::Cancel), []);
        board.lines.send(0, b"kept");
        let replies = board.handle(2, bulk_in(64));
        assert!(matches!(&replies[..], [(2, Packet::Bulk { data, .. })] if data == b"kept"));
    }

    #[test]
    fn a_full_line_holds_the_guest_back_until_it_is_read() {
        let mut board = awake(Kind::Uno);
        let block = vec![b'x'; 1 << 20];
        for id in 0..16 {
            assert_eq!(board.handle(id, bulk_out(&block)).len(), 1);
        }
        assert_eq!(board.handle(99, bulk_out(b"late")), []);
        board.lines.get_mut(0).unwrap().received.clear();
        assert!(matches!(
            board.progress()[..],
            [(
                99,
                Packet::Bulk {
                    status: 0,
                    length: 4,
                    ..
                }
            )]
        ));
        assert_eq!(board.lines.get(0).unwrap().received, b"late");
    }

    #[test]
    fn the_uno_is_programmed_through_its_line() {
        let mut board = awake(Kind::Uno);
        let setup = Setup {
            request_type: 0x21,
            request: 0x22,
            value: 1,
            index: 0,
            length: 0,
        };
        board.handle(
            1,
            Packet::Control {
                endpoint: 0,
                setup,
                status: 0,
                data: vec![],
            },
        );
        board.handle(2, bulk_in(64));
        let replies = board.handle(3, bulk_out(&[0x30, 0x20]));
        assert!(
            matches!(&replies[..], [(3, _), (2, Packet::Bulk { data, .. })] if data == &[0x14, 0x10])
        );
        board.handle(
            4,
            bulk_out(&[0x55, 0, 0, 0x20, 0x64, 0, 2, b'F', 7, 8, 0x20]),
        );
        assert_eq!(board.flash().unwrap()[..3], [7, 8, 0xff]);
        assert!(board.lines.get(0).unwrap().received.is_empty());
    }

    proptest! {
        #[test]
        fn no_request_makes_any_device_panic(
            kind in prop::sample::select(Kind::ALL.to_vec()),
            fields in any::<(u8, u8, u16, u16, u16)>(),
            standard in any::<bool>(),
            data in prop::collection::vec(any::<u8>(), 0..64),
            endpoint in any::<u8>(),
        ) {
            let mut board = awake(kind);
            let (request_type, request, value, index, length) = fields;
            let request_type = if standard { request_type & 0x9f } else { request_type };
            let setup = Setup { request_type, request, value, index, length };
            let replies = board.handle(9, Packet::Control { endpoint: 0, setup, status: 0, data: data.clone() });
            let fits = matches!(&replies[..], [(9, Packet::Control { setup: sent, data, .. }), ..]
                if data.len() <= usize::from(length) && sent.length <= length);
            prop_assert!(fits, "{:?}", replies);
            board.handle(10, Packet::Bulk { endpoint, status: 0, length: 3, stream: 0, data });
            board.handle(10, Packet::Cancel);
        }
    }
}
