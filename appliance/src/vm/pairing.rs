//! Makes and ends the pairing, as a person asks for it in the portal.

use std::{io, sync::Arc, time::Duration};

use tokio::{runtime, sync::Mutex, task::spawn_blocking, time::timeout};

use super::{
    Config, Discovery, Pairing, PublicKey,
    askpass::Password,
    bring::{self, BringError},
    conf,
    diagnosis::Diagnoses,
    host_key::{self, HostKeyError, Pins},
    key::{Key, KeyError},
};
use crate::system::ConfError;

/// How long an order waits for the one before it.
const TURN: Duration = Duration::from_secs(30);

/// Why the pairing stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// Host or user are none, or vm.conf cannot be read or written.
    #[error(transparent)]
    Conf(#[from] ConfError),
    /// The VM shows no host key, or the pins cannot be read or written.
    #[error(transparent)]
    HostKey(#[from] HostKeyError),
    /// Nobody has looked at the VM's host keys yet.
    #[error("the VM's host key has to be confirmed first")]
    Unconfirmed {
        /// What the VM shows now.
        shown: Vec<PublicKey>,
    },
    /// The VM shows none of the host keys that were confirmed.
    #[error("the VM does not show the host key that was confirmed")]
    Changed {
        /// Fingerprints that were confirmed.
        confirmed: Vec<String>,
        /// What the VM shows now.
        shown: Vec<PublicKey>,
    },
    /// There is a pairing already, or another host key is pinned, and nobody said to replace it.
    #[error("this replaces the pairing with {}@{}", old.user, old.host)]
    Replaces {
        /// The pairing that would end.
        old: Pairing,
        /// Its pinned fingerprints.
        pinned: Vec<String>,
    },
    /// Another order is under way for too long.
    #[error("another change of the pairing is under way")]
    Busy,
    /// The task ended before its time.
    #[error("failed to change the pairing")]
    Task(#[source] io::Error),
}

/// What a person asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetUp {
    /// Whom to pair with.
    pub pairing: Pairing,
    /// Fingerprints of the host keys that the person was shown and let pass.
    pub confirmed: Vec<String>,
    /// The pairing that the person knows to end by this, if any.
    pub replaces: Option<Pairing>,
}

/// Makes and ends the pairing. Cheap to clone; one order at a time is carried out, to its end even
/// if nobody waits for it any more.
#[derive(Clone)]
pub struct Pairer {
    config: Config,
    pins: Pins,
    kick: Arc<dyn Fn() + Send + Sync>,
    runtime: runtime::Handle,
    turn: Arc<Mutex<()>>,
    /// Tests the way to a VM.
    pub diagnoses: Diagnoses,
    /// Finds VMs on the network.
    pub discovery: Discovery,
}

impl Pairer {
    /// Works on the places of this configuration, on the current runtime. `kick` makes the link look
    /// at vm.conf.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn new(config: Config, kick: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self {
            pins: Pins::new(&config.ssh_dir),
            diagnoses: Diagnoses::new(config.clone()),
            discovery: config.discovery.clone(),
            config,
            kick,
            runtime: runtime::Handle::current(),
            turn: Arc::default(),
        }
    }

    /// The Pi's key, made if there is none yet.
    pub async fn key(&self) -> Result<Key, KeyError> {
        Key::ensure(&self.config.ssh_dir).await
    }

    /// The fingerprints of the host keys that are pinned.
    pub async fn fingerprints(&self) -> Result<Vec<String>, PairError> {
        let pins = self.pins.clone();
        blocking(move || Ok(pins.fingerprints()?)).await
    }

    /// Pairs with a VM whose host key was confirmed, and has the link connect to it. Asking for the
    /// pairing that there is changes nothing.
    pub async fn set_up(&self, order: SetUp) -> Result<(), PairError> {
        let this = self.clone();
        self.in_turn(async move { this.replace(order).await }).await
    }

    /// Ends the pairing, also one whose record is damaged; what it was.
    pub async fn end(&self) -> Result<Option<Pairing>, PairError> {
        let this = self.clone();
        let work = async move {
            let kick = Arc::clone(&this.kick);
            let old = blocking(move || {
                let old = conf::read(&this.config.vm_conf).ok().flatten();
                // The record first: pins without it mean nothing.
                conf::remove(&this.config.vm_conf)?;
                this.pins.forget()?;
                Ok(old)
            })
            .await?;
            tracing::info!(?old, "the pairing was ended");
            kick();
            Ok(old)
        };
        self.in_turn(work).await
    }

    async fn replace(&self, order: SetUp) -> Result<(), PairError> {
        let SetUp {
            pairing,
            confirmed,
            replaces,
        } = order;
        conf::check(&pairing)?;
        let this = self.clone();
        let (old, pinned) = blocking(move || {
            let old = conf::read(&this.config.vm_conf)?;
            Ok((old, this.pins.keys()?))
        })
        .await?;
        // ssh-keyscan asks the box's resolver, which does not know names in `.local`.
        let found = self.config.discovery.resolve(&pairing.host).await;
        let address = found.first().map(ToString::to_string);
        let host = address.as_ref().unwrap_or(&pairing.host);
        let shown = host_key::scan(host, self.config.port).await?;
        if confirmed.is_empty() {
            return Err(PairError::Unconfirmed { shown });
        }
        let chosen: Vec<PublicKey> = shown
            .iter()
            .filter(|key| confirmed.contains(&key.fingerprint()))
            .cloned()
            .collect();
        if chosen.is_empty() {
            return Err(PairError::Changed { confirmed, shown });
        }
        let same_keys = !pinned.is_empty() && pinned.iter().all(|key| chosen.contains(key));
        if let Some(old) = old
            && (old != pairing || !same_keys && !pinned.is_empty())
            && replaces.as_ref() != Some(&old)
        {
            let pinned = pinned.iter().map(PublicKey::fingerprint).collect();
            return Err(PairError::Replaces { old, pinned });
        }
        let this = self.clone();
        let paired = pairing.clone();
        blocking(move || {
            // Wherever a power cut ends this, what is left is at most a host whose key is not
            // confirmed, and the link says so.
            if !same_keys {
                this.pins.forget()?;
            }
            conf::write(&this.config.vm_conf, &paired)?;
            Ok(this.pins.pin(&chosen)?)
        })
        .await?;
        tracing::info!(host = pairing.host, user = pairing.user, "paired");
        (self.kick)();
        Ok(())
    }

    /// Brings the Pi's key to a VM whose host key was confirmed, with the user's password. Whether it
    /// was not there before.
    pub async fn bring_key(
        &self,
        pairing: Pairing,
        confirmed: Vec<String>,
        password: Password,
    ) -> Result<bool, BringError> {
        let this = self.clone();
        let work =
            async move { Ok(bring::bring(&this.config, pairing, &confirmed, password).await) };
        self.in_turn(work).await?
    }

    /// Carries out one order after the other, whoever still waits for them.
    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, PairError>> + Send + 'static,
    ) -> Result<T, PairError> {
        let turn = Arc::clone(&self.turn);
        let order = self.runtime.spawn(async move {
            let _turn = timeout(TURN, turn.lock())
                .await
                .map_err(|_| PairError::Busy)?;
            work.await
        });
        order
            .await
            .unwrap_or_else(|error| Err(PairError::Task(io::Error::other(error))))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PairError> + Send + 'static,
) -> Result<T, PairError> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(PairError::Task(io::Error::other(error))))
}
