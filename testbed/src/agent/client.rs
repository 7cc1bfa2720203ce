//! The host's end of the agent's port: requests from any thread, replies sorted by number.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Numbered, Reply, Request};

/// What marks in the kernel's log begin with.
pub(crate) const MARK: &str = "testbed mark ";

/// Why the agent gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port is gone: the machine is off or was killed.
    #[error("failed to reach the agent: the machine is off")]
    Gone,
    /// Nothing came back in time.
    #[error("failed to get an answer from the agent within {0:?}")]
    Silent(Duration),
    /// The agent could not do it.
    #[error("failed to {what} in the guest: {why}")]
    Refused {
        /// The request in short.
        what: String,
        /// The agent's own words.
        why: String,
    },
    /// The agent's answer does not fit the request.
    #[error("failed to make sense of the agent's answer to {0}")]
    Confused(String),
    /// The socket to QEMU.
    #[error("failed to talk to the agent's port")]
    Io(#[from] io::Error),
}

type Waiting = Arc<Mutex<HashMap<u64, SyncSender<Reply>>>>;

/// A connection to one guest's agent. Calls may overlap.
#[derive(Debug)]
pub struct Agent {
    stream: Mutex<UnixStream>,
    socket: UnixStream,
    next: AtomicU64,
    waiting: Waiting,
}

impl Agent {
    /// Takes over a connected socket; what passes over it is written to `log`.
    pub fn new(socket: UnixStream, log: File) -> io::Result<Self> {
        let waiting = Waiting::default();
        let reader = BufReader::new(socket.try_clone()?);
        let sink = Arc::clone(&waiting);
        thread::spawn(move || sort(reader, log, &sink));
        Ok(Self {
            stream: Mutex::new(socket.try_clone()?),
            socket,
            next: AtomicU64::new(1),
            waiting,
        })
    }

    /// Sends `request` and waits for its reply, at most `limit`.
    pub fn ask(&self, request: Request, limit: Duration) -> Result<Reply, Error> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let what = short(&request);
        let mut line =
            serde_json::to_vec(&Numbered { id, body: request }).map_err(io::Error::other)?;
        line.push(b'\n');
        let (sender, receiver) = mpsc::sync_channel(1);
        self.waiting().insert(id, sender);
        let written = self
            .stream
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(&line);
        if written.is_err() {
            self.waiting().remove(&id);
            return Err(Error::Gone);
        }
        let reply = receiver.recv_timeout(limit);
        self.waiting().remove(&id);
        match reply {
            Ok(Reply::Failed(why)) => Err(Error::Refused { what, why }),
            Ok(reply) => Ok(reply),
            Err(RecvTimeoutError::Timeout) => Err(Error::Silent(limit)),
            Err(RecvTimeoutError::Disconnected) => Err(Error::Gone),
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, SyncSender<Reply>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Ends the reading thread.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

fn sort(mut reader: BufReader<UnixStream>, mut log: File, waiting: &Waiting) {
    let mut line = Vec::new();
    loop {
        line.clear();
        if !matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            break;
        }
        // The log is a help for people; a full disk must not stop the tests.
        let _ = log.write_all(&line);
        let Ok(Numbered { id, body }) = serde_json::from_slice::<Numbered<Reply>>(&line) else {
            continue;
        };
        let sender = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        if let Some(sender) = sender {
            let _ = sender.try_send(body);
        }
    }
    // Dropping the senders tells everyone who still waits.
    waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clear();
}

pub(crate) fn short(request: &Request) -> String {
    match request {
        Request::Shell { command, .. } => format!("run '{command}'"),
        Request::Start { command, .. } => format!("start '{command}'"),
        Request::Put { path, .. } => format!("write {path}"),
        Request::Get { path, .. } => format!("read {path}"),
        Request::Sync { .. } | Request::KernelLog { .. } => "read the kernel's log".to_owned(),
        Request::AwaitLog { text, .. } => format!("see '{text}' in the kernel's log"),
        Request::OpenTty { path, .. } => format!("open {path}"),
        Request::CloseTty { .. } => "close a tty".to_owned(),
        Request::Transfer { .. } | Request::RoundTrips { .. } => "pass bytes over a tty".to_owned(),
        Request::Lines { .. } => "set a tty's control lines".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_find_their_requests_in_any_order() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let agent = Arc::new(Agent::new(ours, tempfile::tempfile().unwrap()).unwrap());
        let calls: Vec<_> = (0..2)
            .map(|n| {
                let agent = Arc::clone(&agent);
                let request = Request::Get {
                    path: n.to_string(),
                    offset: 0,
                    limit: 1,
                };
                thread::spawn(move || agent.ask(request, Duration::from_secs(20)))
            })
            .collect();
        let mut lines = BufReader::new(theirs.try_clone().unwrap()).lines();
        let mut requests: Vec<Numbered<Request>> = (0..2)
            .map(|_| serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap())
            .collect();
        requests.sort_by_key(|request| std::cmp::Reverse(request.id));
        let mut out = theirs;
        out.write_all(b"the tail of a broken line\n").unwrap();
        for request in requests {
            let Request::Get { path, .. } = request.body else {
                panic!()
            };
            let reply = Numbered {
                id: request.id,
                body: Reply::Data(path),
            };
            writeln!(out, "{}", serde_json::to_string(&reply).unwrap()).unwrap();
        }
        for (n, call) in calls.into_iter().enumerate() {
            match call.join().unwrap().unwrap() {
                Reply::Data(data) => assert_eq!(data, n.to_string()),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_machine_that_goes_ends_the_wait() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let agent = Agent::new(ours, tempfile::tempfile().unwrap()).unwrap();
        thread::spawn(move || drop(theirs));
        let request = Request::KernelLog { since_us: 0 };
        assert!(matches!(
            agent.ask(request, Duration::from_secs(20)),
            Err(Error::Gone)
        ));
    }
}
