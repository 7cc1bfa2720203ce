//! Repeats in quick succession: they become one record with a count, so that neither a flapping
//! device nor a stranger on the network fills the disk.

use std::{collections::BTreeMap, net::IpAddr};

use protocol::BusId;

use super::{Event, Kind, Record};

/// After a pause of this length the next one is news again, in milliseconds.
const QUIET_MS: i64 = 60_000;
/// How long repeats are added to one record, at first; doubled each time they go on,
const FIRST_WINDOW_MS: i64 = 60_000;
/// up to this.
const LAST_WINDOW_MS: i64 = 3_600_000;
/// Addresses that are told apart at a time, per kind of event.
const MOST_ADDRESSES: usize = 16;

/// What makes two events repeats of each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    /// Where the device is plugged in; its identity can be another each time.
    Port(BusId),
    Address(IpAddr),
    /// Addresses beyond [`MOST_ADDRESSES`].
    Others,
    Nobody,
}

/// What happened lately.
#[derive(Default)]
pub(super) struct Repeats {
    lately: BTreeMap<(Kind, Whose), Lately>,
    /// The key of the event that was placed last.
    placed: Option<(Kind, Whose)>,
}

struct Lately {
    record: Option<Record>,
    /// When the window began, and how long it is.
    since_ms: i64,
    window_ms: i64,
    last_ms: i64,
    /// Records in this window.
    records: u32,
}

impl Repeats {
    /// The record to which this event is to be added, none where it gets its own. It loses its address when there are too many to tell them apart.
    pub(super) fn place(&mut self, event: &mut Event, now_ms: i64) -> Option<Record> {
        self.lately
            .retain(|_, lately| now_ms - lately.last_ms <= QUIET_MS);
        let key = (event.kind, self.whose(event));
        if key.1 == Whose::Others {
            event.peer = None;
        }
        self.placed = Some(key.clone());
        let lately = self.lately.entry(key).or_insert(Lately {
            record: None,
            since_ms: now_ms,
            window_ms: FIRST_WINDOW_MS,
            last_ms: now_ms,
            records: 0,
        });
        lately.last_ms = now_ms;
        let most = most_records(event.kind);
        if now_ms - lately.since_ms > lately.window_ms {
            // It goes on and on: from now on one record for each, ever longer, window.
            lately.since_ms = now_ms;
            lately.window_ms = (lately.window_ms * 2).min(LAST_WINDOW_MS);
            lately.records = most;
            return None;
        }
        if lately.records < most {
            lately.records += 1;
            return None;
        }
        lately.record.clone()
    }

    /// The record in which the event that was placed last ended up.
    pub(super) fn latest(&mut self, record: &Record) {
        let lately = self.placed.take();
        if let Some(lately) = lately.and_then(|key| self.lately.get_mut(&key)) {
            lately.record = Some(record.clone());
        }
    }

    fn whose(&self, event: &Event) -> Whose {
        match (&event.device, event.peer) {
            (Some(device), _) => Whose::Port(device.busid.clone()),
            (None, Some(peer)) => {
                let address = Whose::Address(peer);
                let kind = event.kind;
                let known = self.lately.contains_key(&(kind, address.clone()));
                let others = self
                    .lately
                    .keys()
                    .filter(|(of, whose)| *of == kind && matches!(whose, Whose::Address(_)));
                if known || others.count() < MOST_ADDRESSES {
                    address
                } else {
                    Whose::Others
                }
            }
            (None, None) => Whose::Nobody,
        }
    }
}

/// How many of them are told apart within a window before they become one record.
fn most_records(kind: Kind) -> u32 {
    match kind {
        kind if kind.is_noise() => 1,
        // What a person does is theirs to read, one by one, at the pace of a person.
        Kind::Action | Kind::Settings | Kind::Token => 20,
        _ => 5,
    }
}
