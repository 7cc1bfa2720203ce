//! What waits to be written; pure.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Clock, Cursor, Event, Filter, Record, Sighting, Stamp,
    change::{Change, Key},
    repeats::Repeats,
};
use crate::manager::Identity;

/// Rows that can wait to be written; one more is not stored.
const MOST_CHANGES: usize = 1024;
/// Events that can wait to be written; after that the oldest is lost.
pub(super) const MOST_EVENTS: usize = 1000;
/// Devices whose sighting can wait.
const MOST_SEEN: usize = 256;

/// What waits to be written.
pub(super) struct Queue {
    boot_id: Arc<str>,
    /// The next event's sequence number.
    next: i64,
    changes: BTreeMap<Key, Change>,
    events: BTreeMap<i64, Record>,
    seen: BTreeMap<Identity, Seen>,
    repeats: Repeats,
    /// Seen while the clock was not set, to be dated when it is.
    undated: BTreeMap<Identity, Seen>,
    /// Whether there may be stored events of this boot from before the clock was set.
    undated_events: bool,
    /// Events that were lost because nothing could be stored for too long.
    lost: u64,
    /// How many calls there were that leave something to write.
    pub asked: u64,
    /// To be closed.
    pub closing: bool,
}

/// A device's sightings since the last write.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub sighting: Sighting,
    pub first: Stamp,
    pub last: Stamp,
    pub plugs: u32,
}

impl Seen {
    /// This, after what `earlier` says of the same device.
    fn after(mut self, earlier: &Self) -> Self {
        self.first = earlier.first;
        self.plugs += earlier.plugs;
        self
    }

    /// Work out the times, once the clock is set.
    fn date(&mut self, now: Stamp) {
        for stamp in [&mut self.first, &mut self.last] {
            if !stamp.is_set() && now.is_set() {
                stamp.unix_ms = now.unix_at(stamp.mono_ms);
                stamp.set = true;
            }
        }
    }
}

/// What is written in one transaction.
pub(super) struct Batch {
    pub boot_id: Arc<str>,
    pub changes: Vec<Change>,
    pub events: Vec<Record>,
    pub seen: Vec<Seen>,
    /// Work out the times of this boot's stored events that have none, by this moment.
    pub date: Option<Stamp>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.events.is_empty() && self.seen.is_empty()
    }
}

impl Queue {
    pub(super) fn new(boot_id: &str, newest: i64) -> Self {
        Self {
            boot_id: boot_id.into(),
            next: newest + 1,
            changes: BTreeMap::new(),
            events: BTreeMap::new(),
            seen: BTreeMap::new(),
            repeats: Repeats::default(),
            undated: BTreeMap::new(),
            undated_events: true,
            lost: 0,
            asked: 0,
            closing: false,
        }
    }

    pub(super) fn change(&mut self, change: Change) {
        self.asked += 1;
        let key = change.key();
        if self.changes.len() >= MOST_CHANGES && !self.changes.contains_key(&key) {
            tracing::warn!(?key, "not stored: too many changes wait to be");
            return;
        }
        self.changes.insert(key, change);
    }

    /// Have this row written unless a newer state of it waits.
    pub(super) fn change_if_none(&mut self, change: &Change) {
        let row = self.changes.entry(change.key());
        row.or_insert_with(|| change.clone());
    }

    pub(super) fn append(&mut self, mut event: Event, now: Stamp) {
        self.asked += 1;
        let record = if let Some(earlier) = self.repeats.place(&mut event, now.mono_ms) {
            Record {
                count: earlier.count.saturating_add(1),
                last_ms: now.unix_ms,
                event,
                ..earlier
            }
        } else {
            let sequence = self.next;
            self.next += 1;
            Record {
                sequence,
                boot_id: Arc::clone(&self.boot_id),
                mono_ms: now.mono_ms,
                unix_ms: now.unix_ms,
                clock: if now.is_set() {
                    Clock::Set
                } else {
                    Clock::Unset
                },
                event,
                count: 1,
                last_ms: now.unix_ms,
            }
        };
        self.repeats.latest(&record);
        self.events.insert(record.sequence, record);
        if self.events.len() > MOST_EVENTS {
            self.events.pop_first();
            self.lost += 1;
        }
    }

    pub(super) fn saw(&mut self, sighting: Sighting, now: Stamp) {
        self.asked += 1;
        let seen = Seen {
            plugs: u32::from(sighting.plugged),
            sighting,
            first: now,
            last: now,
        };
        merge(&mut self.seen, seen);
    }

    /// What is to be written now.
    pub(super) fn batch(&mut self, now: Stamp) -> Batch {
        if now.is_set() {
            for record in self.events.values_mut() {
                record.date(&self.boot_id, now);
            }
            for mut seen in std::mem::take(&mut self.undated).into_values() {
                // What came since is newer, though it is merged first.
                if let Some(newer) = self.seen.remove(&seen.sighting.identity) {
                    seen = newer.after(&seen);
                }
                merge(&mut self.seen, seen);
            }
            for seen in self.seen.values_mut() {
                seen.date(now);
            }
        }
        Batch {
            boot_id: Arc::clone(&self.boot_id),
            changes: self.changes.values().cloned().collect(),
            events: self.events.values().cloned().collect(),
            seen: self.seen.values().cloned().collect(),
            date: Some(now).filter(|now| now.is_set() && self.undated_events),
        }
    }

    /// This batch is in the file: only what came meanwhile still waits.
    pub(super) fn written(&mut self, batch: &Batch) {
        for change in &batch.changes {
            let key = change.key();
            if self.changes.get(&key) == Some(change) {
                self.changes.remove(&key);
            }
        }
        for record in &batch.events {
            if self.events.get(&record.sequence) == Some(record) {
                self.events.remove(&record.sequence);
            }
        }
        for seen in &batch.seen {
            let identity = &seen.sighting.identity;
            if self.seen.get(identity) == Some(seen) {
                self.seen.remove(identity);
            } else if let Some(since) = self.seen.get_mut(identity) {
                since.plugs -= seen.plugs;
            }
            if !seen.last.is_set() {
                let seen = Seen {
                    plugs: 0,
                    ..seen.clone()
                };
                merge(&mut self.undated, seen);
            }
        }
        if batch.date.is_some() {
            self.undated_events = false;
        }
        self.undated_events |= batch
            .events
            .iter()
            .any(|record| record.clock == Clock::Unset);
    }

    /// The file's newest event has this number: what waits comes after it.
    pub(super) fn follow(&mut self, newest: i64) {
        let first = self.events.keys().next().copied().unwrap_or(self.next);
        if newest >= first {
            let shift = newest + 1 - first;
            let events = std::mem::take(&mut self.events).into_values();
            self.events = events
                .map(|record| (record.sequence + shift, record))
                .map(|(sequence, record)| (sequence, Record { sequence, ..record }))
                .collect();
            self.next += shift;
            self.repeats = Repeats::default();
        }
    }

    /// Events that wait and are wanted, with their times as far as they are known now.
    pub(super) fn waiting(&self, filter: &Filter, cursor: Cursor, now: Stamp) -> Vec<Record> {
        let events = self.events.values().filter(|e| cursor.admits(e.sequence));
        let dated = events.cloned().map(|mut record| {
            record.date(&self.boot_id, now);
            record
        });
        dated.filter(|record| filter.admits(record)).collect()
    }

    /// Devices that wait to be written.
    pub(super) fn sightings(&self) -> impl Iterator<Item = &Seen> {
        self.seen.values()
    }

    /// The latest event's sequence number, 0 for none.
    pub(super) fn newest(&self) -> i64 {
        self.next - 1
    }

    /// Events that were lost because nothing could be stored for too long.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

/// Add a sighting; of too many devices the new one is lost.
fn merge(all: &mut BTreeMap<Identity, Seen>, seen: Seen) {
    let identity = seen.sighting.identity.clone();
    let merged = match all.get(&identity) {
        Some(earlier) => seen.after(earlier),
        None if all.len() >= MOST_SEEN => return,
        None => seen,
    };
    all.insert(identity, merged);
}
