//! `usb-event-handler session`: the Pi's requests on stdin, answers on stdout.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, SyncSender, TrySendError},
    },
    time::{Duration, Instant},
};

use protocol::line::{Answer, CAN_ALIAS, MAX_LINE, PROTOCOL, PiHello, Reply, Request, VmHello};
use rustix::event::PollFlags;

use crate::{
    attach::Vm,
    config::PiConf,
    failure::Error,
    handler, journal, module,
    presence::{PiState, Presence},
    wait,
    workers::{Workers, spawn},
};

/// After this silence people are told: the Pi speaks every 2 s, so it has missed two heartbeats, and a power cut is
/// known within 5 s.
const SILENT_AFTER: Duration = Duration::from_millis(4500);
/// After this silence the session ends; the attachments stay for their grace time.
const GONE_AFTER: Duration = Duration::from_secs(20);
/// Requests under way at once: a Pi with every port of a full tree, with room.
const MOST_REQUESTS: usize = 64;
/// Replies waiting to be written; more means that nobody reads them.
const MOST_REPLIES: usize = 256;

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The Pi closed it.
    Closed,
    /// Nothing was heard.
    Silence,
    /// Nobody reads the replies.
    Unread,
    /// pi.conf says something else than at the start.
    Outdated,
}

/// How long to wait for the Pi; a parameter for tests.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until people are told.
    pub silent_after: Duration,
    /// Until the session ends.
    pub gone_after: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            silent_after: SILENT_AFTER,
            gone_after: GONE_AFTER,
        }
    }
}

/// Serve a session until it ends. Attachments stay.
pub fn serve(vm: Vm, input: OwnedFd, output: OwnedFd, patience: Patience) -> Result<End, Error> {
    let (replies, queue) = mpsc::sync_channel::<Reply>(MOST_REPLIES);
    let writer = move || {
        let mut output = File::from(output);
        for reply in queue {
            if write_line(&mut output, &reply).is_err() {
                // Nobody reads: the sender sees the queue closed.
                break;
            }
        }
    };
    spawn(writer)?;
    let mut session = Session {
        vm: Arc::new(vm),
        replies,
        workers: Workers::new(MOST_REQUESTS),
        under_way: Arc::default(),
    };
    session.reply(None, session.hello()?);
    note(&session.vm, PiState::Answers);
    let preparing = Arc::clone(&session.vm);
    session.workers.run(move || {
        // What is missing is told by each connect that needs it.
        let _ = preparing.prepare();
        module::load_serial_drivers();
    })?;
    let end = session.listen(input, patience)?;
    note(&session.vm, PiState::Gone);
    Ok(end)
}

fn note(vm: &Vm, state: PiState) {
    // For people's eyes only: the session goes on without it.
    if let Err(error) = Presence::record(&vm.root, state) {
        eprintln!("{}", error.sentence());
    }
}

fn write_line(output: &mut impl Write, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    output.write_all(&line)
}

struct Session {
    vm: Arc<Vm>,
    replies: SyncSender<Reply>,
    workers: Workers,
    under_way: Arc<AtomicUsize>,
}

impl Session {
    fn hello(&self) -> Result<Answer, Error> {
        Ok(Answer::Hello(VmHello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").into(),
            boot_id: self.vm.root.boot_id()?,
            host_name: self
                .vm
                .root
                .read("/proc/sys/kernel/hostname")
                .unwrap_or_default(),
            address: self.vm.server.own_address(),
            capabilities: vec![CAN_ALIAS.into()],
        }))
    }

    /// Queue a reply; false when nobody reads them.
    fn reply(&self, re: Option<String>, answer: Answer) -> bool {
        send(&self.replies, re, answer)
    }

    fn listen(&mut self, input: OwnedFd, patience: Patience) -> Result<End, Error> {
        let unreadable = |source| Error::Read {
            path: "/dev/stdin".into(),
            source,
        };
        let mut input = File::from(input);
        let mut lines = Lines::default();
        let mut heard = Instant::now();
        let mut told = false;
        loop {
            let limit = if told {
                patience.gone_after
            } else {
                patience.silent_after
            };
            let left = limit.saturating_sub(heard.elapsed());
            if left.is_zero() {
                if told {
                    self.tell("the Pi has been silent for too long: its session ends");
                    return Ok(End::Silence);
                }
                told = true;
                self.tell("the Pi does not answer; its devices are kept for the grace time");
                note(&self.vm, PiState::Silent);
                continue;
            }
            if !wait::ready(&input, PollFlags::IN, left).map_err(unreadable)? {
                continue;
            }
            let mut bytes = [0; 4096];
            let count = match input.read(&mut bytes) {
                Ok(0) => return Ok(End::Closed),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(error)),
            };
            heard = Instant::now();
            if told {
                told = false;
                self.tell("the Pi answers again");
                note(&self.vm, PiState::Answers);
            }
            for line in lines.take(&bytes[..count]) {
                if let Some(end) = self.line(line)? {
                    return Ok(end);
                }
            }
        }
    }

    fn tell(&self, text: &str) {
        journal::warn(&self.vm.root, &format!("{}: {text}", self.vm.server.host));
    }

    /// Act on a line, which may end the session.
    fn line(&mut self, line: Result<String, Error>) -> Result<Option<End>, Error> {
        let unread = |read: bool| Ok((!read).then_some(End::Unread));
        let request = line.and_then(|line| Ok(line.parse::<Request>()?));
        let request = match request {
            Ok(request) => request,
            Err(error) => return unread(self.reply(None, Answer::Error(error.failure()))),
        };
        match &request {
            // The heartbeat: often enough for a person who has just changed the file, and in nobody's way.
            Request::Ping if self.is_outdated() => {
                self.tell(
                    "pi.conf was changed: the session ends, and the Pi that it names opens another",
                );
                return Ok(Some(End::Outdated));
            }
            Request::Ping => {
                return unread(self.reply(Some(request.to_string()), Answer::Pong {}));
            }
            Request::Hello(hello) => self.greet(hello),
            _ => {}
        }
        if self.under_way.fetch_add(1, Ordering::Relaxed) >= MOST_REQUESTS {
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            let failure = Error::TooManyRequests(MOST_REQUESTS).failure();
            return unread(self.reply(Some(request.to_string()), Answer::Error(failure)));
        }
        let (vm, replies) = (Arc::clone(&self.vm), self.replies.clone());
        let under_way = Arc::clone(&self.under_way);
        self.workers.run(move || {
            carry_out(&vm, &replies, &request);
            under_way.fetch_sub(1, Ordering::Relaxed);
        })?;
        Ok(None)
    }

    /// Whether pi.conf names another Pi by now, or wants other ports. One that is damaged or gone is for
    /// the next session to complain about.
    fn is_outdated(&self) -> bool {
        PiConf::load(&self.vm.root).is_ok_and(|conf| {
            conf.host != self.vm.server.host || conf.fast_enumeration != self.vm.fast_enumeration
        })
    }

    /// From here on the session's imports carry the Pi's boot id and its grace time.
    fn greet(&mut self, hello: &PiHello) {
        let mut vm = (*self.vm).clone();
        vm.pi_boot_id = Some(hello.boot_id.clone());
        vm.grace = Duration::from_secs(hello.grace_seconds.into());
        vm.gives_next = hello.gives_next;
        self.vm = Arc::new(vm);
    }
}

fn carry_out(vm: &Vm, replies: &SyncSender<Reply>, request: &Request) {
    let answered = handler::answer(vm, request);
    if !send(replies, Some(request.to_string()), answered.answer) {
        return;
    }
    if matches!(request, Request::Hello(_) | Request::Connect(..)) {
        vm.wait_for_next();
    }
    if let Some((attachment, since)) = answered.unsettled {
        send(replies, None, Answer::Settled(vm.settle(attachment, since)));
    }
}

fn send(replies: &SyncSender<Reply>, re: Option<String>, answer: Answer) -> bool {
    match replies.try_send(Reply { re, answer }) {
        Ok(()) => true,
        Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
    }
}

/// Cuts bytes into lines of bounded length.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
    overlong: bool,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) -> Vec<Result<String, Error>> {
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, ended) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            if self.begun.len() + text.len() > MAX_LINE {
                self.overlong = true;
                self.begun = Vec::new();
            }
            if !self.overlong {
                self.begun.extend(text);
            }
            if ended {
                let line = std::mem::take(&mut self.begun);
                lines.push(if std::mem::take(&mut self.overlong) {
                    Err(Error::LineTooLong(MAX_LINE))
                } else {
                    Ok(String::from_utf8_lossy(&line).into_owned())
                });
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_wherever_the_bytes_are() {
        let mut lines = Lines::default();
        let mut take = |bytes: &[u8]| -> Vec<Option<String>> {
            lines.take(bytes).into_iter().map(Result::ok).collect()
        };
        assert_eq!(take(b"pi"), []);
        assert_eq!(take(b"ng\nsta"), [Some("ping".into())]);
        assert_eq!(
            take(b"tus\n\n"),
            [Some("status".into()), Some(String::new())]
        );
        assert_eq!(take(&vec![b'x'; MAX_LINE]), []);
        assert_eq!(take(b"yz"), []);
        assert_eq!(take(b"\nping\n"), [None, Some("ping".into())]);
    }
}
