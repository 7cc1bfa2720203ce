//! Pairing from the VM in one line.
//!
//! A person makes an [`Offer`]: a random token in an address that gives out a script. The script
//! installs vm-helper, which asks for an invitation and reports back; that uses the token up.
//!
//! - this module: the one offer that there is
//! - `script`: what the address gives out
//! - [`handlers`]: what is asked for

pub(super) mod handlers;
mod script;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use protocol::join::{Joined, Refusal};
use tokio::time::Instant;

use super::packages::Package;
use crate::{
    access::{Secret, digest},
    vm::Pairing,
};

/// How long a token lives.
pub(super) const LIFE: Duration = Duration::from_mins(15);
/// Wrong tokens that are answered in a [`PERIOD`]; a guess finds one among 2^256.
const GUESSES: u32 = 20;
/// For how long guesses are counted.
const PERIOD: Duration = Duration::from_mins(1);

/// What a person wants from a machine that joins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// The Pi as the machine reaches it, `HOST:PORT`.
    pub(super) pi: String,
    /// The user who lets the Pi in; none: the machine decides.
    pub(super) user: Option<String>,
    /// The pairing that may end by it.
    pub(super) replaces: Option<Pairing>,
}

/// How far an offer has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nobody asked yet.
    Waiting,
    /// The script was fetched.
    Fetched,
    /// A machine reported; the Pi is looking at it.
    Reported,
    /// A machine reported and was not taken; it may try again.
    Refused(Refusal),
    /// A machine of this user is paired.
    Joined {
        /// What it was told.
        joined: Joined,
        /// Its user.
        user: String,
    },
}

/// What stands open.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    token: Secret,
    made: Instant,
    used: bool,
    /// What was wished for.
    pub(super) wish: Wish,
    /// What the address gives out.
    pub(super) script: String,
    /// The line for the VM.
    pub(super) line: String,
    /// How far it has come.
    pub(super) progress: Progress,
}

impl Offer {
    /// Whether its token still opens anything.
    pub(super) fn is_open(&self) -> bool {
        !self.used && self.made.elapsed() < LIFE
    }

    /// Whether something may still come of it.
    pub(super) fn is_under_way(&self) -> bool {
        self.is_open() || self.progress == Progress::Reported && self.made.elapsed() < LIFE
    }
}

/// The one offer that there may be. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Joins(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    offer: Option<Offer>,
    /// Wrong tokens since that time.
    guesses: Option<(Instant, u32)>,
}

/// A token that opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// Wrong, used or too old.
    Wrong,
    /// One of too many.
    TooMany,
}

impl Joins {
    /// Makes an offer, which ends the one before.
    pub(super) fn make(&self, wish: Wish, packages: &[Package]) -> io::Result<()> {
        let token = Secret::random()?;
        let script = script::script(&wish.pi, token.expose(), packages);
        self.lock().offer = Some(Offer {
            line: script::line(&wish.pi, token.expose(), &script),
            script,
            wish,
            token,
            made: Instant::now(),
            used: false,
            progress: Progress::Waiting,
        });
        Ok(())
    }

    /// The offer, open or not.
    pub(super) fn offer(&self) -> Option<Offer> {
        self.lock().offer.clone()
    }

    /// The offer that a token opens.
    fn open(&self, token: &str) -> Result<Offer, Closed> {
        find(&mut self.lock(), token).cloned()
    }

    /// The same; the token opens nothing any more.
    fn take(&self, token: &str) -> Result<Offer, Closed> {
        let mut state = self.lock();
        let offer = find(&mut state, token)?;
        offer.used = true;
        offer.progress = Progress::Reported;
        Ok(offer.clone())
    }

    /// Notes how far the offer of this token has come. A machine that was refused may use it again.
    fn progress(&self, token: &Secret, progress: Progress) {
        if let Some(offer) = &mut self.lock().offer
            && offer.token == *token
        {
            offer.used = matches!(progress, Progress::Joined { .. });
            offer.progress = progress;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find<'a>(state: &'a mut State, token: &str) -> Result<&'a mut Offer, Closed> {
    // Of digests, so that the time it takes tells nothing.
    let is_right = |offer: &Offer| offer.is_open() && digest(token) == offer.token.digest();
    if state.offer.as_ref().is_some_and(is_right)
        && let Some(offer) = &mut state.offer
    {
        return Ok(offer);
    }
    let now = Instant::now();
    let (since, count) = match state.guesses {
        Some((since, count)) if since + PERIOD > now => (since, count + 1),
        _ => (now, 1),
    };
    state.guesses = Some((since, count));
    Err(if count > GUESSES {
        Closed::TooMany
    } else {
        Closed::Wrong
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (Joins, Secret) {
        let joins = Joins::default();
        let wish = Wish {
            pi: "192.168.1.7:8080".into(),
            ..Wish::default()
        };
        joins.make(wish, &[]).unwrap();
        let token = joins.offer().unwrap().token;
        (joins, token)
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_lives_for_fifteen_minutes() {
        let (joins, token) = made();
        for _ in 1..LIFE.as_secs() {
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(joins.open(token.expose()).is_ok());
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(joins.open(token.expose()).unwrap_err(), Closed::Wrong);
        assert_eq!(joins.take(token.expose()).unwrap_err(), Closed::Wrong);
    }

    #[tokio::test]
    async fn a_token_is_used_once_and_again_after_a_refusal() {
        let (joins, token) = made();
        assert!(joins.open(token.expose()).is_ok());
        assert!(joins.take(token.expose()).is_ok());
        assert!(joins.take(token.expose()).is_err());
        assert!(joins.open(token.expose()).is_err());
        // Whoever looks at the page meanwhile sees that it goes on.
        assert!(joins.offer().unwrap().is_under_way());
        let refused = Progress::Refused(Refusal {
            error: "no".into(),
            remedy: String::new(),
        });
        joins.progress(&token, refused);
        assert!(joins.take(token.expose()).is_ok());
        let joined = Progress::Joined {
            joined: Joined {
                host: "h".into(),
                host_keys: Vec::new(),
                key: "k".into(),
            },
            user: "dev".into(),
        };
        joins.progress(&token, joined);
        assert!(joins.open(token.expose()).is_err());
        assert!(!joins.offer().unwrap().is_under_way());
    }

    #[tokio::test]
    async fn a_new_one_ends_the_one_before() {
        let (joins, token) = made();
        joins.make(Wish::default(), &[]).unwrap();
        assert_eq!(joins.open(token.expose()).unwrap_err(), Closed::Wrong);
        joins.progress(&token, Progress::Fetched);
        assert_eq!(joins.offer().unwrap().progress, Progress::Waiting);
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_are_counted_and_the_right_one_still_opens() {
        let (joins, token) = made();
        for _ in 0..GUESSES {
            assert_eq!(joins.open("x").unwrap_err(), Closed::Wrong);
        }
        assert_eq!(joins.open("").unwrap_err(), Closed::TooMany);
        assert!(joins.open(token.expose()).is_ok());
        tokio::time::advance(PERIOD).await;
        assert_eq!(joins.open("x").unwrap_err(), Closed::Wrong);
    }
}
