//! The handle: claiming, signing in, sessions.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};

use super::{
    error::AccessError,
    kept::Kept,
    password::{self, Cost, Password},
    reset::{self, Reset},
    secret::{Digest, Secret, digest},
    sessions::{Session, Sessions},
    tokens::{Token, Tokens},
    tries::Tries,
};
use crate::history::{Event, Kind, Store};

/// How long after a start of the Pi it can be claimed.
const CLAIM_WINDOW: Duration = Duration::from_mins(30);

/// Passwords that wait to be hashed, one at a time, so that the memory stays bounded.
const MOST_WAITING: usize = 8;

/// Where things are, and what they cost.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file with the password's hash.
    pub password: PathBuf,
    /// The file that removes the password.
    pub reset: PathBuf,
    /// How long the Pi has been running.
    pub uptime: fn() -> Duration,
    /// What hashing costs.
    pub cost: Cost,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            password: "/data/portal/password".into(),
            reset: "/boot/reset-password".into(),
            uptime: since_boot,
            cost: Cost::default(),
        }
    }
}

/// The kernel's time since boot, not the process's: a process that is started anew opens nothing.
fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = Duration::from_secs(time.tv_sec.unsigned_abs());
    seconds + Duration::from_nanos(time.tv_nsec.unsigned_abs())
}

/// What a stranger finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Door {
    /// Nobody has claimed the Pi; it can be claimed for so much longer.
    Claim(Duration),
    /// Nobody has claimed the Pi, and the time for that is over.
    Over,
    /// One can sign in.
    SignIn,
    /// The password cannot be read; a sentence with the remedy.
    Broken(String),
}

/// Who may use the portal. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    /// The uptime at which the time for claiming began.
    opened: Duration,
    notice: Option<String>,
    store: Store,
    password: Mutex<Password>,
    sessions: Mutex<Sessions>,
    tokens: Mutex<Tokens>,
    tries: Mutex<Tries>,
    hashing: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Access {
    /// Read the password, or remove it if that was asked for. Sessions and tokens are kept in the
    /// store; where that is broken they end with the process.
    pub async fn open(config: Config, store: Store) -> Self {
        let (reset, password) = (config.reset.clone(), config.password.clone());
        let read = spawn_blocking(move || {
            let came = reset::carry_out(&reset, &password);
            (came, Password::read(&password))
        });
        let (came, password) = read.await.unwrap_or_else(|error| {
            let sentence = format!("The password was not read ({error}). Restart the Pi.");
            (Reset::NotAsked, Password::Broken(sentence))
        });
        let opened = match came {
            Reset::Done => (config.uptime)(),
            Reset::NotAsked | Reset::Refused(_) => Duration::ZERO,
        };
        let notice = match &came {
            Reset::Refused(why) => Some(why.clone()),
            Reset::NotAsked | Reset::Done => None,
        };
        let mut kept = store.recall_access();
        if matches!(password, Password::None) {
            // They belong to whoever claimed the Pi before.
            store.keep_access(kept.drain(..).map(|kept| match kept {
                Kept::Session(key, _) => Kept::Session(key, None),
                Kept::Token(key, _) => Kept::Token(key, None),
            }));
        }
        match &notice {
            Some(why) => store.append(Event::new(Kind::Password).saying(why)),
            None if matches!(came, Reset::Done) => {
                store.append(
                    Event::new(Kind::Password).saying("reset by a file on the boot partition"),
                );
            }
            None => {}
        }
        let sessions = kept.iter().filter_map(|kept| match kept {
            Kept::Session(key, Some(session)) => Some((*key, session.clone())),
            _ => None,
        });
        let tokens = kept.iter().filter_map(|kept| match kept {
            Kept::Token(key, Some(token)) => Some((*key, token.clone())),
            _ => None,
        });
        let shared = Arc::new(Shared {
            sessions: Mutex::new(Sessions::recalled(sessions, Instant::now())),
            tokens: Mutex::new(Tokens::recalled(tokens)),
            config,
            opened,
            notice,
            store,
            password: Mutex::new(password),
            tries: Mutex::default(),
            hashing: Arc::new(Semaphore::new(1)),
            waiting: Semaphore::new(MOST_WAITING),
        });
        Self { shared }
    }

    /// What a stranger finds.
    #[must_use]
    pub fn door(&self) -> Door {
        match &*lock(&self.shared.password) {
            Password::Set(_) => Door::SignIn,
            Password::Broken(why) => Door::Broken(why.clone()),
            Password::None => self.shared.window_left().map_or(Door::Over, Door::Claim),
        }
    }

    /// A sentence to show to people: that the password was to be reset, and was not.
    #[must_use]
    pub fn notice(&self) -> Option<String> {
        self.shared.notice.clone()
    }

    /// Choose the first password; signs in.
    pub async fn claim(
        &self,
        address: IpAddr,
        password: String,
        again: &str,
    ) -> Result<Secret, AccessError> {
        match self.door() {
            Door::Claim(_) => {}
            Door::Over => return Err(AccessError::Over),
            Door::SignIn => return Err(AccessError::Claimed),
            Door::Broken(why) => return Err(AccessError::Broken(why)),
        }
        password::check(&password, again)?;
        self.hashing(move |shared| {
            // Others may have been before in the queue.
            let Password::None = *lock(&shared.password) else {
                return Err(AccessError::Claimed);
            };
            shared.set_password(&password)
        })
        .await?;
        tracing::info!(%address, "the portal was claimed");
        self.record(
            Event::new(Kind::Password)
                .by(address)
                .saying("chosen for the first time"),
        );
        self.begin(address)
    }

    /// Sign in.
    pub async fn sign_in(&self, address: IpAddr, password: String) -> Result<Secret, AccessError> {
        self.verify(address, password).await?;
        self.record(Event::new(Kind::SignIn).by(address));
        self.begin(address)
    }

    /// Whether this token belongs to an open session; its key, under which it is called here.
    #[must_use]
    pub fn session(&self, token: &str) -> Option<Digest> {
        let key = digest(token);
        self.is_open(&key).then_some(key)
    }

    /// Whether this session is still open.
    #[must_use]
    pub fn is_open(&self, key: &Digest) -> bool {
        let now = Instant::now();
        let (is_open, kept) = {
            let mut sessions = lock(&self.shared.sessions);
            (sessions.is_open(key, now), sessions.passed(now))
        };
        self.shared.store.keep_access(kept);
        is_open
    }

    /// All open sessions, the latest used first.
    #[must_use]
    pub fn sessions(&self) -> Vec<Session> {
        lock(&self.shared.sessions).list(Instant::now())
    }

    /// End a session; returns when that is on the disk, if it can be.
    pub async fn sign_out(&self, key: &Digest) {
        let ended = lock(&self.shared.sessions).end(key);
        self.shared.store.keep_access(ended);
        self.shared.store.flush().await;
    }

    /// End all sessions; returns when that is on the disk, if it can be.
    pub async fn sign_out_everywhere(&self) {
        let ended = lock(&self.shared.sessions).end_all();
        self.shared.store.keep_access(ended);
        self.shared.store.flush().await;
    }

    /// Make a token for a program, under a name that no other one has.
    pub async fn make_token(&self, address: IpAddr, name: &str) -> Result<Secret, AccessError> {
        let token = Secret::random().map_err(AccessError::Random)?;
        let made = {
            let mut tokens = lock(&self.shared.tokens);
            let name = tokens.check(name)?;
            let event = Event::new(Kind::Token)
                .by(address)
                .saying(format!("{name}: made"));
            self.record(event);
            tokens.add(token.digest(), name, self.shared.store.now_ms())
        };
        self.shared.store.keep_access([made]);
        self.shared.store.flush().await;
        Ok(token)
    }

    /// Remove a token; returns when that is on the disk, if it can be.
    pub async fn remove_token(&self, address: IpAddr, key: &Digest) {
        let removed = lock(&self.shared.tokens).remove(key);
        if let Some((name, kept)) = removed {
            let event = Event::new(Kind::Token).by(address);
            self.record(event.saying(format!("{name}: removed")));
            self.shared.store.keep_access([kept]);
            self.shared.store.flush().await;
        }
    }

    /// All tokens, by name.
    #[must_use]
    pub fn tokens(&self) -> Vec<Token> {
        lock(&self.shared.tokens).list()
    }

    /// Whether a program may come in with this token.
    #[must_use]
    pub fn accepts(&self, token: &str) -> bool {
        let now = self.shared.store.now_ms();
        let (accepted, kept) = lock(&self.shared.tokens).accept(&digest(token), now);
        self.shared.store.keep_access(kept);
        accepted
    }

    /// The time, if the clock was set, in milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> Option<i64> {
        self.shared.store.now_ms()
    }

    /// Choose another password; ends all sessions but this one.
    pub async fn change_password(
        &self,
        key: Digest,
        address: IpAddr,
        old: String,
        new: String,
        again: &str,
    ) -> Result<(), AccessError> {
        password::check(&new, again)?;
        self.verify(address, old).await?;
        self.hashing(move |shared| {
            shared.set_password(&new)?;
            let ended = lock(&shared.sessions).end_others(&key);
            shared.store.keep_access(ended);
            Ok(())
        })
        .await?;
        tracing::info!(%address, "the password was changed");
        self.record(Event::new(Kind::Password).by(address).saying("changed"));
        self.shared.store.flush().await;
        Ok(())
    }

    async fn verify(&self, address: IpAddr, password: String) -> Result<(), AccessError> {
        let hash = match &*lock(&self.shared.password) {
            Password::Set(hash) => hash.clone(),
            Password::None => return Err(AccessError::NotClaimed),
            Password::Broken(why) => return Err(AccessError::Broken(why.clone())),
        };
        // Counted before it is tried: many at once are as many as one after the other.
        lock(&self.shared.tries).take(address, Instant::now())?;
        let verified = self
            .hashing(move |_| password::verify(&password, &hash))
            .await;
        match &verified {
            Ok(()) => lock(&self.shared.tries).forgive(address),
            Err(AccessError::Busy) => lock(&self.shared.tries).give_back(address),
            Err(error) => {
                tracing::warn!(%address, %error, "sign-in refused");
                self.record(Event::new(Kind::SignInFailed).by(address));
            }
        }
        verified
    }

    fn begin(&self, address: IpAddr) -> Result<Secret, AccessError> {
        let token = Secret::random().map_err(AccessError::Random)?;
        let (key, created) = (token.digest(), self.shared.store.now_ms());
        let kept = lock(&self.shared.sessions).begin(key, address, created, Instant::now());
        self.shared.store.keep_access(kept);
        Ok(token)
    }

    fn record(&self, event: Event) {
        self.shared.store.append(event);
    }

    /// Do work that hashes, when it is its turn. It is done to the end, also when nobody waits for
    /// it any more.
    async fn hashing<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, AccessError> + Send + 'static,
    ) -> Result<T, AccessError> {
        let _place = self
            .shared
            .waiting
            .try_acquire()
            .map_err(|_| AccessError::Busy)?;
        let turn: OwnedSemaphorePermit = Arc::clone(&self.shared.hashing)
            .acquire_owned()
            .await
            .map_err(|_| AccessError::Busy)?;
        let shared = Arc::clone(&self.shared);
        let done = spawn_blocking(move || {
            let _turn = turn;
            work(&shared)
        });
        done.await
            .map_err(|error| AccessError::Hash(error.to_string()))?
    }
}

impl Shared {
    /// How much longer the portal can be claimed.
    fn window_left(&self) -> Option<Duration> {
        (self.opened + CLAIM_WINDOW)
            .checked_sub((self.config.uptime)())
            .filter(|left| !left.is_zero())
    }

    fn set_password(&self, password: &str) -> Result<(), AccessError> {
        let written = password::write(&self.config.password, password, self.config.cost)?;
        *lock(&self.password) = written;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under the lock is whole at each step, so a panic elsewhere spoils nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
