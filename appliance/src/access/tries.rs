//! How often an address may try a password.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::error::AccessError;

/// Tries in a row;
const TRIES: u32 = 5;
/// after them, one each so often.
const REGAINED: Duration = Duration::from_secs(12);
/// Addresses that are remembered; whoever has more of them is slowed down by the hashing alone,
/// which runs one at a time.
const MOST_ADDRESSES: usize = 256;

/// When each address will have all its tries again.
#[derive(Debug, Default)]
pub(super) struct Tries {
    whole_at: HashMap<IpAddr, Instant>,
}

impl Tries {
    /// Use up a try of this address.
    pub(super) fn take(&mut self, address: IpAddr, now: Instant) -> Result<(), AccessError> {
        let address = address.to_canonical();
        let whole_at = self.whole_at.get(&address).copied().unwrap_or(now).max(now);
        let used = whole_at - now;
        let allowed = REGAINED * (TRIES - 1);
        if let Some(left) = used.checked_sub(allowed).filter(|left| !left.is_zero()) {
            // Rounded up: whoever waits as long as told is let in.
            let wait = Duration::from_secs(left.as_secs() + 1);
            return Err(AccessError::TooMany(wait));
        }
        self.make_room(now);
        self.whole_at.insert(address, whole_at + REGAINED);
        Ok(())
    }

    /// It was the right password.
    pub(super) fn forgive(&mut self, address: IpAddr) {
        self.whole_at.remove(&address.to_canonical());
    }

    /// A try that was taken was not made after all.
    pub(super) fn give_back(&mut self, address: IpAddr) {
        if let Some(whole_at) = self.whole_at.get_mut(&address.to_canonical()) {
            // It was that much earlier before.
            *whole_at = whole_at.checked_sub(REGAINED).unwrap_or(*whole_at);
        }
    }

    fn make_room(&mut self, now: Instant) {
        if self.whole_at.len() < MOST_ADDRESSES {
            return;
        }
        self.whole_at.retain(|_, whole_at| *whole_at > now);
        if self.whole_at.len() >= MOST_ADDRESSES {
            let first = self.whole_at.iter().min_by_key(|(_, at)| **at);
            if let Some(address) = first.map(|(address, _)| *address) {
                self.whole_at.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_in_a_row_and_then_one_each_twelve_seconds() {
        let (mut tries, now) = (Tries::default(), Instant::now());
        let (one, mapped) = (
            "10.0.0.7".parse().unwrap(),
            "::ffff:10.0.0.7".parse().unwrap(),
        );
        for n in 0..5 {
            let address = if n % 2 == 0 { one } else { mapped };
            assert!(tries.take(address, now).is_ok());
        }
        let Err(AccessError::TooMany(wait)) = tries.take(one, now) else {
            panic!("a sixth try");
        };
        assert!(wait <= REGAINED + Duration::from_secs(1));
        assert!(tries.take("10.0.0.8".parse().unwrap(), now).is_ok());
        assert!(tries.take(one, now + wait).is_ok());
        assert!(tries.take(one, now + wait).is_err());
        tries.give_back(mapped);
        assert!(tries.take(one, now + wait).is_ok());
        assert!(tries.take(one, now + wait).is_err());
        tries.forgive(mapped);
        assert!(tries.take(one, now + wait).is_ok());
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut tries, now) = (Tries::default(), Instant::now());
        for n in 0..10_000u32 {
            assert!(tries.take(IpAddr::from(n.to_be_bytes()), now).is_ok());
        }
        assert!(tries.whole_at.len() <= MOST_ADDRESSES);
    }
}
