//! A short ssh session of its own, for one command: beside the kept session, and for VMs that are
//! not paired.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

use super::{host_key, public_key::PublicKey, session::address_text};
use crate::system::durable;

/// How long the connection and the login may take; slow guests under emulation need several seconds.
const CONNECT_SECONDS: u32 = 20;
/// The exit status by which ssh says that it failed itself.
const SSH_FAILED: i32 = 255;
/// How much of an output is kept, in bytes; what comes beyond ends the visit.
const MAX_OUTPUT: u64 = 256 * 1024;

/// How to log in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Login<'a> {
    /// With this private key.
    Key(&'a Path),
    /// With a password, which this program tells ssh when it is run with this socket in
    /// [`askpass::SOCKET`](super::askpass::SOCKET).
    Password { program: &'a Path, socket: &'a Path },
}

/// Whom to visit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visit<'a> {
    pub address: &'a SocketAddr,
    pub user: &'a str,
    /// Host keys to trust, under [`host_key::ALIAS`].
    pub known_hosts: &'a Path,
    pub login: Login<'a>,
}

/// What a visit came to.
#[derive(Debug)]
pub(super) enum Visited {
    /// ssh did not get there; what it said.
    NoLogin(String),
    /// The command ran; its exit status (none by a signal) and output.
    Ran {
        status: Option<i32>,
        stdout: String,
        stderr: String,
    },
}

impl Visit<'_> {
    /// Runs a command with this input; ends by itself after `deadline`.
    pub async fn run(&self, command: &str, input: &[u8], deadline: Duration) -> Visited {
        match timeout(deadline, self.try_run(command, input)).await {
            Ok(Ok(visited)) => visited,
            Ok(Err(error)) => Visited::NoLogin(format!("failed to run ssh: {error}")),
            Err(_) => Visited::NoLogin("Connection timed out".to_owned()),
        }
    }

    async fn try_run(&self, command: &str, input: &[u8]) -> io::Result<Visited> {
        let mut child = self
            .ssh(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // Whoever does not want it ends; what that means is told by its exit status.
                let _ = stdin.write_all(input).await;
            }
        };
        let ((), stdout, stderr) = tokio::join!(write, keep(stdout), keep(stderr));
        let status = child.wait().await?.code();
        let (stdout, stderr) = (stdout?, stderr?);
        Ok(if status == Some(SSH_FAILED) {
            Visited::NoLogin(stderr)
        } else {
            Visited::Ran {
                status,
                stdout,
                stderr,
            }
        })
    }

    fn ssh(&self, command: &str) -> Command {
        let mut ssh = Command::new("ssh");
        let known_hosts = self.known_hosts.display();
        // No configuration file, no agent, no sharing of connections.
        ssh.args(["-F", "none", "-a", "-x", "-T"]);
        for option in [
            "ControlPath=none".to_owned(),
            "IdentityAgent=none".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            format!("HostKeyAlias={}", host_key::ALIAS),
            format!("UserKnownHostsFile=\"{known_hosts}\""),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            "UpdateHostKeys=no".to_owned(),
            "CheckHostIP=no".to_owned(),
            "CanonicalizeHostname=no".to_owned(),
            "ServerAliveInterval=5".to_owned(),
            "LogLevel=INFO".to_owned(),
            format!("ConnectTimeout={CONNECT_SECONDS}"),
        ] {
            ssh.args(["-o", &option]);
        }
        match self.login {
            Login::Key(key) => {
                ssh.args(["-o", "BatchMode=yes"])
                    .args(["-o", "PreferredAuthentications=publickey", "-i"])
                    .arg(key);
            }
            Login::Password { program, socket } => {
                ssh.args(["-o", "PubkeyAuthentication=no"])
                    .args([
                        "-o",
                        "PreferredAuthentications=password,keyboard-interactive",
                    ])
                    .args(["-o", "NumberOfPasswordPrompts=1"])
                    .env("SSH_ASKPASS", program)
                    .env("SSH_ASKPASS_REQUIRE", "force")
                    .env(super::askpass::SOCKET, socket);
            }
        }
        ssh.args([
            "-p",
            &self.address.port().to_string(),
            "-l",
            self.user,
            "--",
        ])
        .arg(address_text(self.address))
        .arg(command);
        ssh
    }
}

/// The beginning of an output.
async fn keep(source: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let mut kept = Vec::new();
    if let Some(source) = source {
        source.take(MAX_OUTPUT).read_to_end(&mut kept).await?;
    }
    Ok(String::from_utf8_lossy(&kept).into_owned())
}

/// Host keys in a file of their own for as long as a visit lasts.
#[derive(Debug)]
pub(super) struct Trusted(PathBuf);

impl Trusted {
    /// Writes them below a directory in memory.
    pub fn new(dir: &Path, keys: &[PublicKey]) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        durable::private_directory(dir)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("trusted-{number}"));
        let lines: Vec<_> = keys
            .iter()
            .map(|key| format!("{} {key}\n", host_key::ALIAS))
            .collect();
        durable::replace(&path, lines.concat().as_bytes(), 0o600)?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Trusted {
    fn drop(&mut self) {
        // In memory: a file that stays is gone with the next boot.
        let _ = std::fs::remove_file(&self.0);
    }
}
