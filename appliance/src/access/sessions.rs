//! Who is signed in.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    kept::{Kept, KeptSession},
    secret::Digest,
};

/// How long a session lasts, in time that the Pi runs: a Pi has no clock of its own, and the one
/// that it gets from the network may jump by decades.
pub const LONGEST: Duration = Duration::from_hours(30 * 24);

/// Sessions at once; one more ends the one that was used least recently.
const MOST: usize = 32;

/// How often their ages are stored anew: a restart makes sessions younger by so much at most.
const STORED_EACH: Duration = Duration::from_hours(1);

/// A browser that is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// What is kept of its token.
    pub key: Digest,
    /// Where it signed in from.
    pub address: IpAddr,
    /// When, in milliseconds since 1970; none where the clock was not set.
    pub created_ms: Option<i64>,
    /// How long it was not used in this run.
    pub idle: Duration,
}

/// All sessions. What changes something returns what is to be stored.
#[derive(Debug)]
pub(super) struct Sessions {
    open: HashMap<Digest, Open>,
    stored: Instant,
}

#[derive(Debug)]
struct Open {
    address: IpAddr,
    created_ms: Option<i64>,
    /// Its age at `counted`.
    age: Duration,
    counted: Instant,
    used: Instant,
}

impl Open {
    fn age(&self, now: Instant) -> Duration {
        self.age + now.duration_since(self.counted)
    }

    fn kept(&self, now: Instant) -> KeptSession {
        KeptSession {
            address: self.address,
            created_ms: self.created_ms,
            age: self.age(now),
        }
    }
}

impl Sessions {
    pub(super) fn recalled(
        kept: impl IntoIterator<Item = (Digest, KeptSession)>,
        now: Instant,
    ) -> Self {
        let open = kept.into_iter().map(|(key, session)| {
            let open = Open {
                address: session.address,
                created_ms: session.created_ms,
                age: session.age,
                counted: now,
                used: now,
            };
            (key, open)
        });
        Self {
            open: open.collect(),
            stored: now,
        }
    }

    pub(super) fn begin(
        &mut self,
        key: Digest,
        address: IpAddr,
        created_ms: Option<i64>,
        now: Instant,
    ) -> Vec<Kept> {
        let mut kept = Vec::new();
        while self.open.len() >= MOST {
            let oldest = self.open.iter().min_by_key(|(_, session)| session.used);
            let Some(key) = oldest.map(|(key, _)| *key) else {
                break;
            };
            kept.extend(self.end(&key));
        }
        let open = Open {
            address: address.to_canonical(),
            created_ms,
            age: Duration::ZERO,
            counted: now,
            used: now,
        };
        kept.push(Kept::Session(key, Some(open.kept(now))));
        self.open.insert(key, open);
        kept
    }

    /// Whether this session is open; that counts as a use of it.
    pub(super) fn is_open(&mut self, key: &Digest, now: Instant) -> bool {
        match self.open.get_mut(key) {
            Some(session) if session.age(now) < LONGEST => {
                session.used = now;
                true
            }
            _ => false,
        }
    }

    /// What is to be stored because time passed.
    pub(super) fn passed(&mut self, now: Instant) -> Vec<Kept> {
        if now.duration_since(self.stored) < STORED_EACH {
            return Vec::new();
        }
        self.stored = now;
        let mut kept = self.end_where(|_, session| session.age(now) >= LONGEST);
        let open = self.open.iter();
        kept.extend(open.map(|(key, session)| Kept::Session(*key, Some(session.kept(now)))));
        kept
    }

    /// All open ones, the latest used first.
    pub(super) fn list(&self, now: Instant) -> Vec<Session> {
        let open = self.open.iter().filter(|(_, s)| s.age(now) < LONGEST);
        let sessions = open.map(|(key, session)| Session {
            key: *key,
            address: session.address,
            created_ms: session.created_ms,
            idle: now.duration_since(session.used),
        });
        let mut sessions: Vec<_> = sessions.collect();
        sessions.sort_by_key(|session| (session.idle, session.key));
        sessions
    }

    pub(super) fn end(&mut self, key: &Digest) -> Option<Kept> {
        self.open.remove(key)?;
        Some(Kept::Session(*key, None))
    }

    pub(super) fn end_others(&mut self, key: &Digest) -> Vec<Kept> {
        self.end_where(|other, _| other != key)
    }

    pub(super) fn end_all(&mut self) -> Vec<Kept> {
        self.end_where(|_, _| true)
    }

    fn end_where(&mut self, ends: impl Fn(&Digest, &Open) -> bool) -> Vec<Kept> {
        let ended = self.open.extract_if(|key, session| ends(key, session));
        ended.map(|(key, _)| Kept::Session(key, None)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn none(now: Instant) -> Sessions {
        Sessions::recalled([], now)
    }

    #[test]
    fn sessions_end() {
        let now = Instant::now();
        let mut sessions = none(now);
        for n in 0..3 {
            sessions.begin([n; 32], HERE, None, now);
        }
        assert!(!sessions.is_open(&[9; 32], now));
        assert_eq!(sessions.end(&[0; 32]), Some(Kept::Session([0; 32], None)));
        assert_eq!(sessions.end(&[0; 32]), None);
        assert!(!sessions.is_open(&[0; 32], now) && sessions.is_open(&[1; 32], now));
        assert_eq!(
            sessions.end_others(&[1; 32]),
            [Kept::Session([2; 32], None)]
        );
        assert!(!sessions.is_open(&[2; 32], now) && sessions.is_open(&[1; 32], now));
        assert_eq!(sessions.end_all(), [Kept::Session([1; 32], None)]);
    }

    #[test]
    fn age_is_what_the_pi_ran_in_all() {
        let now = Instant::now();
        let mut sessions = none(now);
        sessions.begin([1; 32], HERE, Some(7), now);
        let later = now + LONGEST.mul_f32(0.9);
        let [Kept::Session(key, Some(kept))] = &sessions.passed(later)[..] else {
            panic!("nothing to store");
        };
        assert_eq!(sessions.passed(later), []);
        // After a restart, whatever any clock shows.
        let mut again = Sessions::recalled([(*key, kept.clone())], now);
        assert_eq!(again.list(now)[0].created_ms, Some(7));
        assert!(again.is_open(key, now + LONGEST.mul_f32(0.09)));
        let end = now + LONGEST.mul_f32(0.11);
        assert!(!again.is_open(key, end));
        assert_eq!(again.list(end), []);
        assert_eq!(again.passed(end), [Kept::Session(*key, None)]);
    }

    #[test]
    fn the_least_used_makes_room() {
        let now = Instant::now();
        let mut sessions = none(now);
        let at = |n: u8| now + Duration::from_secs(n.into());
        let most = u8::try_from(MOST).unwrap();
        for n in 0..most {
            sessions.begin([n; 32], HERE, None, at(n));
        }
        assert!(sessions.is_open(&[0; 32], at(most)));
        let kept = sessions.begin([most; 32], HERE, None, at(most));
        assert_eq!(kept[0], Kept::Session([1; 32], None));
        assert_eq!(sessions.open.len(), MOST);
        assert!(sessions.is_open(&[0; 32], at(most)) && !sessions.is_open(&[1; 32], at(most)));
    }
}
