//! How many connections may be in their handshake.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Connections in their handshake at once.
const TOTAL: usize = 32;
/// The same for one peer: the paired VM needs one for each device it attaches at once.
const PER_PEER: usize = 8;

/// The places for connections in their handshake.
#[derive(Default)]
pub(super) struct Slots(Mutex<HashMap<IpAddr, usize>>);

/// One place, given back when dropped.
pub(super) struct Slot {
    slots: Arc<Slots>,
    peer: IpAddr,
}

impl Slots {
    fn taken(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection of `peer`, if there is one.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        let mut taken = self.taken();
        let of_peer = taken.get(&peer).copied().unwrap_or(0);
        if taken.values().sum::<usize>() >= TOTAL || of_peer >= PER_PEER {
            return None;
        }
        taken.insert(peer, of_peer + 1);
        Some(Slot {
            slots: Arc::clone(self),
            peer,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken();
        match taken.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                taken.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_by_peer_and_in_all_and_come_back() {
        let slots = Arc::new(Slots::default());
        let peer = |n: u8| IpAddr::from([10, 0, 0, n]);
        let mut held: Vec<Slot> = (0..PER_PEER).filter_map(|_| slots.take(peer(1))).collect();
        assert_eq!(held.len(), PER_PEER);
        assert!(slots.take(peer(1)).is_none());
        held.extend((2..=9).flat_map(|n| {
            let slots = Arc::clone(&slots);
            (0..PER_PEER).filter_map(move |_| slots.take(peer(n)))
        }));
        assert_eq!(held.len(), TOTAL);
        assert!(slots.take(peer(10)).is_none());
        held.clear();
        assert!(slots.take(peer(1)).is_some());
        assert!(slots.taken().is_empty());
    }
}
