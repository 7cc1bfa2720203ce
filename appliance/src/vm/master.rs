//! The OpenSSH master process that holds the connection, and the end of every one of them.
//!
//! A master outlives whoever started it, even a killed appliance. It is found again by the control
//! directory in its command line, which OpenSSH keeps there (`ssh: PATH [mux]` once it runs).

use std::{
    fs, io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use openssh::{ControlPersist, KnownHosts, Session, SessionBuilder};
use rustix::process::{Pid, Signal, kill_process};

use super::host_key;
use crate::system::durable;

/// How long reaching the VM, the key exchange and the login may take together. Natively 0.3 s; an
/// emulated guest needs more than four.
const CONNECT_DEADLINE: Duration = Duration::from_secs(20);
/// How long a master may live without a session on it, in seconds: only one whose owner was killed
/// is ever idle.
const IDLE_SECONDS: NonZeroUsize = NonZeroUsize::new(10).unwrap();
/// How long a master has to end by itself before it is killed.
const END_GRACE: Duration = Duration::from_millis(500);
/// The crate's prefix of control directories.
const PREFIX: &str = ".ssh-connection";

/// Starts and ends masters below one control directory.
#[derive(Debug, Clone)]
pub(super) struct Masters {
    dir: PathBuf,
}

/// Whom to connect to, and as whom.
#[derive(Debug)]
pub(super) struct Destination<'a> {
    /// Address, as ssh takes it.
    pub address: &'a str,
    pub port: u16,
    pub user: &'a str,
    /// The private key's file.
    pub key: &'a Path,
    /// The file of pinned host keys.
    pub known_hosts: &'a Path,
}

/// A running master.
#[derive(Debug)]
pub(super) struct Master {
    /// Opens sessions on it; dropping it ends nothing.
    pub session: Arc<Session>,
    log: Option<Box<Path>>,
}

impl Master {
    /// What ssh wrote since it was started.
    pub fn log(&self) -> String {
        let text = self.log.as_deref().and_then(|path| fs::read(path).ok());
        String::from_utf8_lossy(&text.unwrap_or_default()).into_owned()
    }
}

impl Masters {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Connects and logs in; fails with what ssh said.
    pub async fn open(&self, to: &Destination<'_>) -> Result<Master, String> {
        let config = self
            .write_config(to)
            .map_err(|error| format!("failed to prepare {}: {error}", self.dir.display()))?;
        let mut builder = SessionBuilder::default();
        builder
            .known_hosts_check(KnownHosts::Strict)
            .control_directory(&self.dir)
            .control_persist(ControlPersist::IdleFor(IDLE_SECONDS))
            .connect_timeout(CONNECT_DEADLINE)
            .config_file(config)
            .keyfile(to.key)
            .user(to.user.to_owned())
            .port(to.port);
        let connecting = builder.connect_mux(to.address);
        let session = tokio::time::timeout(CONNECT_DEADLINE, connecting)
            .await
            .map_err(|_| "Connection timed out".to_owned())?
            .map_err(|error| super::failure::chain(&error))?;
        // The crate would end the master when its session is dropped, by a call that blocks.
        let (socket, log) = session.detach();
        Ok(Master {
            session: Arc::new(Session::resume_mux(socket, None)),
            log,
        })
    }

    /// Ends every master below the control directory, of this process or of an earlier one, and
    /// removes what they left. Returns within a second.
    pub async fn end_all(&self) {
        let dir = self.dir.clone();
        let ended = tokio::task::spawn_blocking(move || end_all(&dir)).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(dir = %self.dir.display(), %error, "failed to clear the control directory");
        }
    }

    /// Options that the crate has no word for. With a file of its own, ssh reads no other one.
    fn write_config(&self, to: &Destination<'_>) -> io::Result<PathBuf> {
        durable::private_directory(&self.dir)?;
        let path = self.dir.join("config");
        let known_hosts = to.known_hosts.display();
        let alias = host_key::ALIAS;
        let text = format!(
            "IdentitiesOnly yes\n\
             IdentityAgent none\n\
             PreferredAuthentications publickey\n\
             HostKeyAlias {alias}\n\
             UserKnownHostsFile \"{known_hosts}\"\n\
             GlobalKnownHostsFile /dev/null\n\
             UpdateHostKeys no\n\
             CheckHostIP no\n\
             CanonicalizeHostname no\n\
             AddressFamily any\n\
             ForwardAgent no\n\
             ForwardX11 no\n\
             IPQoS lowdelay\n\
             TCPKeepAlive no\n\
             ServerAliveInterval 15\n\
             ServerAliveCountMax 2\n\
             LogLevel INFO\n"
        );
        if fs::read(&path).is_ok_and(|held| held == text.as_bytes()) {
            return Ok(path);
        }
        durable::replace(&path, text.as_bytes(), 0o600)?;
        Ok(path)
    }
}

fn end_all(dir: &Path) -> io::Result<()> {
    let mark = dir.join(PREFIX).to_string_lossy().into_owned();
    let since = Instant::now();
    let mut signal = Signal::TERM;
    loop {
        let pids = masters(&mark);
        if pids.is_empty() {
            break;
        }
        if signal == Signal::TERM || since.elapsed() >= END_GRACE {
            for pid in pids {
                tracing::debug!(pid = pid.as_raw_nonzero(), ?signal, "ending an ssh master");
                // One that is gone by now is what was wanted.
                let _ = kill_process(pid, signal);
            }
            if signal == Signal::KILL {
                break;
            }
            signal = Signal::KILL;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Processes that are ssh and name this control directory.
fn masters(mark: &str) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let command = fs::read(entry.path().join("cmdline")).ok()?;
            let command = String::from_utf8_lossy(&command);
            (command.starts_with("ssh") && command.contains(mark)).then_some(Pid::from_raw(pid)?)
        })
        .collect()
}
