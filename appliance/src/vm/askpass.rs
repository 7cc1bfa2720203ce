//! Tells ssh a password, once: ssh runs this program to ask for it, which gets it from a socket of
//! the appliance. So it is in no argument, environment variable or file.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{io::AsyncWriteExt, net::UnixListener};

use crate::system::durable;

/// The environment variable that names the socket. With it, the appliance's program is an askpass.
pub const SOCKET: &str = "USBIP_PI_ASKPASS";
/// How long the appliance may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// The longest password that is passed on, in bytes; OpenSSH reads 1023 at most.
pub const MAX_PASSWORD: usize = 1000;

/// A password, which shows itself to nobody.
pub struct Password(String);

impl Password {
    /// A password that ssh can be told: not empty, not overlong, one line.
    #[must_use]
    pub fn new(text: String) -> Option<Self> {
        let fits = (1..=MAX_PASSWORD).contains(&text.len()) && !text.contains(['\n', '\r', '\0']);
        fits.then_some(Self(text))
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

/// A socket that tells a password to the first who asks.
#[derive(Debug)]
pub(super) struct Offer {
    path: PathBuf,
    listener: UnixListener,
}

impl Offer {
    /// Opens a socket below a directory that nobody else can enter.
    pub fn new(dir: &Path) -> io::Result<Self> {
        durable::private_directory(dir)?;
        let path = dir.join("askpass");
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        Ok(Self { path, listener })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells the first one of this user who asks; later ones find nobody.
    pub async fn tell(&self, password: Password) -> io::Result<()> {
        let own = rustix::process::geteuid().as_raw();
        loop {
            let (mut stream, _) = self.listener.accept().await?;
            if stream.peer_cred()?.uid() == own {
                stream.write_all(password.0.as_bytes()).await?;
                return stream.shutdown().await;
            }
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        // In memory: a socket that stays is gone with the next boot.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What ssh runs: prints the password that is offered at this socket. Fails when none is.
pub fn answer(socket: &std::ffi::OsStr) -> io::Result<()> {
    let stream = UnixStream::connect(Path::new(socket))?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    let mut password = Vec::new();
    stream
        .take(MAX_PASSWORD as u64)
        .read_to_end(&mut password)?;
    if password.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    password.push(b'\n');
    io::stdout().write_all(&password)
}
