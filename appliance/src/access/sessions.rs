//! Who is signed in.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::secret::Digest;

/// How long a session lasts, in time that the Pi runs: a Pi has no clock of its own, and the one
/// that it gets from the network may jump by decades.
pub const LONGEST: Duration = Duration::from_hours(30 * 24);

/// Sessions at once; one more ends the one that was used least recently.
const MOST: usize = 32;

/// A browser that is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// What is kept of its token.
    pub key: Digest,
    /// Where it signed in from.
    pub address: IpAddr,
    /// How long the Pi has run since.
    pub age: Duration,
    /// How long it was not used.
    pub idle: Duration,
}

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    open: HashMap<Digest, Open>,
}

#[derive(Debug)]
struct Open {
    address: IpAddr,
    begun: Instant,
    used: Instant,
}

impl Sessions {
    pub(super) fn begin(&mut self, key: Digest, address: IpAddr, now: Instant) {
        self.drop_old(now);
        if self.open.len() >= MOST {
            let oldest = self.open.iter().min_by_key(|(_, session)| session.used);
            if let Some(key) = oldest.map(|(key, _)| *key) {
                self.open.remove(&key);
            }
        }
        let address = address.to_canonical();
        let (begun, used) = (now, now);
        self.open.insert(
            key,
            Open {
                address,
                begun,
                used,
            },
        );
    }

    /// Whether this session is open; that counts as a use of it.
    pub(super) fn is_open(&mut self, key: &Digest, now: Instant) -> bool {
        self.drop_old(now);
        match self.open.get_mut(key) {
            Some(session) => {
                session.used = now;
                true
            }
            None => false,
        }
    }

    /// All open ones, the latest used first.
    pub(super) fn list(&mut self, now: Instant) -> Vec<Session> {
        self.drop_old(now);
        let sessions = self.open.iter().map(|(key, session)| Session {
            key: *key,
            address: session.address,
            age: now.duration_since(session.begun),
            idle: now.duration_since(session.used),
        });
        let mut sessions: Vec<_> = sessions.collect();
        sessions.sort_by_key(|session| (session.idle, session.age, session.key));
        sessions
    }

    pub(super) fn end(&mut self, key: &Digest) {
        self.open.remove(key);
    }

    pub(super) fn end_others(&mut self, key: &Digest) {
        self.open.retain(|other, _| other == key);
    }

    pub(super) fn end_all(&mut self) {
        self.open.clear();
    }

    fn drop_old(&mut self, now: Instant) {
        self.open.retain(|_, session| now - session.begun < LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn sessions_end() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        for n in 0..3 {
            sessions.begin([n; 32], HERE, now);
        }
        assert!(!sessions.is_open(&[9; 32], now));
        sessions.end(&[0; 32]);
        assert!(!sessions.is_open(&[0; 32], now) && sessions.is_open(&[1; 32], now));
        sessions.end_others(&[1; 32]);
        assert!(!sessions.is_open(&[2; 32], now) && sessions.is_open(&[1; 32], now));
        assert!(sessions.is_open(&[1; 32], now + LONGEST.mul_f32(0.999)));
        assert!(!sessions.is_open(&[1; 32], now + LONGEST));
    }

    #[test]
    fn the_least_used_makes_room() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let at = |n: u8| now + Duration::from_secs(n.into());
        let most = u8::try_from(MOST).unwrap();
        for n in 0..most {
            sessions.begin([n; 32], HERE, at(n));
        }
        assert!(sessions.is_open(&[0; 32], at(most)));
        sessions.begin([most; 32], HERE, at(most));
        assert_eq!(sessions.open.len(), MOST);
        assert!(sessions.is_open(&[0; 32], at(most)) && !sessions.is_open(&[1; 32], at(most)));
    }
}
