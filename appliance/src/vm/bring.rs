//! Brings the Pi's key to a VM with the password of its user, which is used once and not kept.

use std::{io, time::Duration};

use super::{
    Config, FailureKind, Pairing, PublicKey,
    askpass::{Offer, Password},
    conf,
    event::Failure,
    failure::{Context, failure, last_line},
    host_key::{self, HostKeyError, Pins},
    key::{Key, KeyError},
    pairing::PairError,
    session,
    visit::{Login, Trusted, Visit, Visited},
};

/// How long the login and the work on the VM may take.
const DEADLINE: Duration = Duration::from_secs(45);
/// What the script on the VM says at its end.
const ADDED: &str = "usbip-pi: added";
const PRESENT: &str = "usbip-pi: present";

/// Why the key is not on the VM.
#[derive(Debug, thiserror::Error)]
pub enum BringError {
    /// The host key is not confirmed or another one, or the order did not get its turn.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// The Pi has no key to bring.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The VM cannot be reached, or lets nobody in.
    #[error("{}", .0.message)]
    Login(Failure),
    /// The password cannot be passed on.
    #[error("failed to pass the password on to ssh")]
    Pass(#[source] io::Error),
    /// The VM let the Pi in, and the file was not written.
    #[error("failed to write ~/.ssh/authorized_keys on the VM: {0}")]
    Write(String),
}

impl From<HostKeyError> for BringError {
    fn from(error: HostKeyError) -> Self {
        Self::Pair(error.into())
    }
}

/// See [`Pairer::bring_key`](super::Pairer::bring_key).
pub(super) async fn bring(
    config: &Config,
    pairing: Pairing,
    confirmed: &[String],
    password: Password,
) -> Result<bool, BringError> {
    conf::check(&pairing).map_err(PairError::from)?;
    let key = Key::ensure(&config.ssh_dir).await?;
    let context = Context {
        pairing,
        authorized_keys_line: key.authorized_keys_line(),
        pinned: Vec::new(),
    };
    let addresses = session::resolve(&context, config)
        .await
        .map_err(BringError::Login)?;
    let address = session::reach(&context, &addresses)
        .await
        .map_err(BringError::Login)?;
    let shown = host_key::scan(&session::address_text(&address), address.port()).await?;
    let keys = trusted(config, &context.pairing, confirmed, shown)?;
    let trusted = Trusted::new(&config.control_dir, &keys).map_err(BringError::Pass)?;
    let offer = Offer::new(&config.control_dir).map_err(BringError::Pass)?;
    let socket = offer.path().to_owned();
    let visit = Visit {
        address: &address,
        user: &context.pairing.user,
        known_hosts: trusted.path(),
        login: Login::Password {
            program: &config.askpass,
            socket: &socket,
        },
    };
    let script = script(&key);
    // Whatever the login shell is, it can do this.
    let visiting = visit.run("exec /bin/sh -s", script.as_bytes(), DEADLINE);
    tokio::pin!(visiting);
    let (visited, asked) = tokio::select! {
        // ssh may have ended by the time that we see that it asked.
        biased;
        told = offer.tell(password) => {
            told.map_err(BringError::Pass)?;
            // Whoever asks again finds nobody.
            drop(offer);
            (visiting.await, true)
        }
        visited = &mut visiting => (visited, false),
    };
    match visited {
        Visited::NoLogin(said) => Err(BringError::Login(refused(&context, &said, asked))),
        Visited::Ran { stdout, .. } if stdout.lines().any(|line| line == ADDED) => Ok(true),
        Visited::Ran { stdout, .. } if stdout.lines().any(|line| line == PRESENT) => Ok(false),
        Visited::Ran { stderr, .. } => Err(BringError::Write(last_line(&stderr).to_owned())),
    }
}

/// The host keys to trust with a password: confirmed just now, or pinned for this host.
fn trusted(
    config: &Config,
    pairing: &Pairing,
    confirmed: &[String],
    shown: Vec<PublicKey>,
) -> Result<Vec<PublicKey>, BringError> {
    let record = conf::read(&config.vm_conf).ok().flatten();
    let mut passed = confirmed.to_vec();
    if record.is_some_and(|record| record.host == pairing.host) {
        passed.extend(Pins::new(&config.ssh_dir).fingerprints()?);
    }
    if passed.is_empty() {
        return Err(PairError::Unconfirmed { shown }.into());
    }
    let keys: Vec<PublicKey> = shown
        .iter()
        .filter(|key| passed.contains(&key.fingerprint()))
        .cloned()
        .collect();
    if keys.is_empty() {
        let confirmed = passed;
        return Err(PairError::Changed { confirmed, shown }.into());
    }
    Ok(keys)
}

/// Why the VM let nobody in; `asked` is whether it wanted to hear the password.
fn refused(context: &Context, said: &str, asked: bool) -> Failure {
    let Pairing { host, user } = &context.pairing;
    if !said.contains("Permission denied (") {
        return context.ssh(said);
    }
    if !asked {
        return failure(
            FailureKind::Login,
            format!("{host} lets nobody in with a password"),
            format!("run the command for the Pi's key on the VM as {user} instead"),
        );
    }
    let (message, remedy) = if user == "root" {
        (
            format!("{host} does not let root in with this password"),
            "type it again; most machines let root in with a key only, then run the command for the Pi's key there instead",
        )
    } else {
        (
            format!("{host} does not let {user} in with this password"),
            "type it again; nothing was changed",
        )
    };
    failure(FailureKind::Login, message, remedy)
}

/// Puts the key's line into authorized_keys, in place of others with the same key. The line and the
/// key have no single quotes.
fn script(key: &Key) -> String {
    let line = key.authorized_keys_line();
    let public = key.public_key();
    let blob = public.split(' ').nth(1).unwrap_or_default();
    format!(
        r#"set -eu
umask 077
line='{line}'
dir=$HOME/.ssh
mkdir -p "$dir"
chmod 700 "$dir"
file=$dir/authorized_keys
[ ! -L "$file" ] || file=$(readlink -f "$file")
touch "$file"
if grep -qxF -- "$line" "$file" && [ "$(grep -cF -- '{blob}' "$file")" = 1 ]; then
    chmod 600 "$file"
    echo '{PRESENT}'
    exit
fi
new=$file.usbip-pi
grep -vF -- '{blob}' "$file" > "$new" || true
printf '%s\n' "$line" >> "$new"
chmod 600 "$new"
mv "$new" "$file"
if command -v restorecon > /dev/null; then restorecon -R "$dir" || true; fi
echo '{ADDED}'
"#
    )
}
