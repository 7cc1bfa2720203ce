//! How often what happened since the appliance started.

use super::{Event, Kind};

/// Upper ends of the buckets for the time from plug to tty, in milliseconds.
pub const BUCKETS_MS: [u64; 8] = [100, 250, 500, 1000, 2000, 5000, 10_000, 30_000];

/// How often what happened since the appliance started.
#[derive(Debug, Clone)]
pub struct Counts {
    /// By kind, in the order of [`Kind::ALL`].
    kinds: [u64; Kind::ALL.len()],
    buckets: [u64; BUCKETS_MS.len()],
    /// Attaches with a known time from plug to tty;
    pub attached: u64,
    /// and these times in all, in milliseconds.
    pub attached_ms: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            kinds: [0; _],
            buckets: [0; _],
            attached: 0,
            attached_ms: 0,
        }
    }
}

impl Counts {
    pub(super) fn count(&mut self, event: &Event) {
        self.kinds[event.kind as usize] += 1;
        let attached = event.attached.as_ref();
        if let Some(ms) = attached.and_then(|attached| attached.plug_to_tty_ms) {
            self.attached += 1;
            self.attached_ms += ms;
            if let Some(bucket) = BUCKETS_MS.iter().position(|most| ms <= *most) {
                self.buckets[bucket] += 1;
            }
        }
    }

    /// How often this happened.
    #[must_use]
    pub fn of(&self, kind: Kind) -> u64 {
        self.kinds[kind as usize]
    }

    /// How many attaches took at most as long as each of [`BUCKETS_MS`].
    pub fn cumulative(&self) -> impl Iterator<Item = u64> {
        self.buckets.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::AttachDetail;

    #[test]
    fn attaches_fall_into_buckets() {
        let mut counts = Counts::default();
        for ms in [Some(100), Some(101), Some(29_999), Some(30_001), None] {
            let mut event = Event::new(Kind::Attached);
            event.attached = Some(AttachDetail {
                ttys: Vec::new(),
                port: 0,
                plug_to_tty_ms: ms,
                timings: None,
            });
            counts.count(&event);
        }
        let cumulative: Vec<_> = counts.cumulative().collect();
        assert_eq!(cumulative, [1, 2, 2, 2, 2, 2, 2, 3]);
        assert_eq!((counts.attached, counts.attached_ms), (4, 60_201));
        assert_eq!(
            (counts.of(Kind::Attached), counts.of(Kind::Refused)),
            (5, 0)
        );
    }
}
