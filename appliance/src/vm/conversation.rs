//! What is said on an established session: requests and their answers, deadlines, the heartbeat.

use std::{collections::VecDeque, future, io, time::Duration};

use protocol::line::{Answer, Failure, FailureKind, Reply, Request};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    event::Event,
    lines::{Line, Lines},
};

/// The VM is asked for a sign of life after this long a silence.
const PING_AFTER: Duration = Duration::from_secs(2);
/// The session is lost after this long a silence.
const SILENCE_LIMIT: Duration = Duration::from_millis(4500);
/// So many lines in a row that are none of the helper's end the session.
const MAX_BAD_LINES: u8 = 3;
/// More bytes than this waiting to be written mean that nobody reads.
const MAX_UNSENT: usize = 64 * 1024;

/// How long an answer may take.
fn deadline_of(request: &Request) -> Duration {
    Duration::from_secs(match request {
        // Import, enumeration by the VM's kernel and its tty.
        Request::Connect(..) => 15,
        Request::Disconnect(..) | Request::Hello(_) => 10,
        Request::Status | Request::Ping | Request::Aliases(_) => 5,
        // Asks the package index and the network.
        Request::Check => 30,
    })
}

/// Why a conversation ended.
#[derive(Debug)]
pub(super) enum End {
    /// Nothing came for [`SILENCE_LIMIT`].
    Silent,
    /// The helper's output ended.
    Closed,
    /// The stream broke.
    Broken(io::Error),
    /// What came is not the line language.
    Babble,
    /// The helper does not read.
    Stuck,
}

impl End {
    /// As a part of a sentence.
    pub fn why(&self) -> String {
        match self {
            Self::Silent => format!("no answer for {} s", SILENCE_LIMIT.as_secs()),
            Self::Closed => "the other side ended it".to_owned(),
            Self::Broken(error) => error.to_string(),
            Self::Babble => "what came is none of the helper's lines".to_owned(),
            Self::Stuck => "the helper reads no requests".to_owned(),
        }
    }
}

#[derive(Debug)]
struct Pending {
    request: Request,
    text: String,
    deadline: Instant,
}

/// One session's conversation.
#[derive(Debug)]
pub(super) struct Conversation<R, W> {
    lines: Lines<R>,
    sink: W,
    unsent: Vec<u8>,
    pending: VecDeque<Pending>,
    heard: Instant,
    pinged: Instant,
    bad_lines: u8,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Conversation<R, W> {
    /// Goes on after the greetings.
    pub fn new(lines: Lines<R>, sink: W) -> Self {
        let now = Instant::now();
        Self {
            lines,
            sink,
            unsent: Vec::new(),
            pending: VecDeque::new(),
            heard: now,
            pinged: now,
            bad_lines: 0,
        }
    }

    /// Talks until the session ends. May be dropped at any time; then [`fail_pending`] answers what
    /// is open.
    ///
    /// [`fail_pending`]: Self::fail_pending
    pub async fn run(
        &mut self,
        requests: &mut mpsc::Receiver<Request>,
        events: &mpsc::Sender<Event>,
    ) -> End {
        loop {
            if self.unsent.len() > MAX_UNSENT {
                return End::Stuck;
            }
            let wake = self.wake_at();
            tokio::select! {
                // What can be done at once comes before giving up: after this process was stopped
                // for a while, there may be lines to read although the time is over.
                biased;
                Some(request) = requests.recv() => self.ask(request),
                written = self.sink.write(&self.unsent), if !self.unsent.is_empty() => {
                    match written {
                        Ok(0) => return End::Closed,
                        Ok(count) => drop(self.unsent.drain(..count)),
                        Err(error) => return End::Broken(error),
                    }
                }
                line = self.lines.next() => match line {
                    Ok(Line::Text(text)) => {
                        if let Some(end) = self.hear(&text, events).await {
                            return end;
                        }
                    }
                    Ok(Line::TooLong) => return End::Babble,
                    Ok(Line::End) => return End::Closed,
                    Err(error) => return End::Broken(error),
                },
                () = sleep_until(wake) => {
                    let now = Instant::now();
                    if now >= self.heard + SILENCE_LIMIT {
                        return End::Silent;
                    }
                    self.expire(now, events).await;
                    if now >= self.ping_at() {
                        self.pinged = now;
                        self.unsent.extend_from_slice(format!("{}\n", Request::Ping).as_bytes());
                    }
                }
            }
        }
    }

    /// Answers every open request by an error, because the session is over.
    pub async fn fail_pending(&mut self, why: &str, events: &mpsc::Sender<Event>) {
        while let Some(pending) = self.pending.front() {
            let message = format!("no answer to {}: {why}", pending.text);
            tell(
                events,
                pending.request.clone(),
                failed(FailureKind::Timeout, message),
            )
            .await;
            self.pending.pop_front();
        }
    }

    fn ask(&mut self, request: Request) {
        let text = request.to_string();
        self.unsent.extend_from_slice(text.as_bytes());
        self.unsent.push(b'\n');
        let deadline = Instant::now() + deadline_of(&request);
        self.pending.push_back(Pending {
            request,
            text,
            deadline,
        });
    }

    async fn hear(&mut self, text: &str, events: &mpsc::Sender<Event>) -> Option<End> {
        self.heard = Instant::now();
        let reply: Reply = match serde_json::from_str(text) {
            Ok(reply) => reply,
            Err(_) if is_object(text) => {
                // A newer helper may say more than this version knows.
                tracing::debug!(line = %shown(text), "unknown reply ignored");
                return None;
            }
            Err(error) => {
                tracing::warn!(line = %shown(text), %error, "line is no reply");
                self.bad_lines += 1;
                return (self.bad_lines >= MAX_BAD_LINES).then_some(End::Babble);
            }
        };
        self.bad_lines = 0;
        match reply {
            Reply {
                answer: Answer::Settled(attachment),
                ..
            } => {
                // Nobody listens only while the process ends.
                let _ = events.send(Event::Settled(attachment)).await;
            }
            Reply {
                re: Some(re),
                answer,
            } => {
                if let Some(at) = self.pending.iter().position(|open| open.text == re) {
                    tell(events, self.pending[at].request.clone(), answer).await;
                    // Removed after it was told: a drop in between must not lose it.
                    self.pending.remove(at);
                } else if !matches!(answer, Answer::Pong {}) {
                    tracing::debug!(%re, "late or unasked reply dropped");
                }
            }
            Reply { re: None, answer } => {
                tracing::warn!(?answer, "the helper says");
            }
        }
        None
    }

    async fn expire(&mut self, now: Instant, events: &mpsc::Sender<Event>) {
        while let Some(at) = self.pending.iter().position(|open| open.deadline <= now) {
            let Pending { request, text, .. } = &self.pending[at];
            let seconds = deadline_of(request).as_secs();
            let message = format!("no answer to {text} within {seconds} s");
            tell(
                events,
                request.clone(),
                failed(FailureKind::Timeout, message),
            )
            .await;
            self.pending.remove(at);
        }
    }

    fn ping_at(&self) -> Instant {
        self.heard.max(self.pinged) + PING_AFTER
    }

    fn wake_at(&self) -> Instant {
        let answers = self.pending.iter().map(|open| open.deadline).min();
        let silence = self.heard + SILENCE_LIMIT;
        let next = silence.min(self.ping_at());
        answers.map_or(next, |answer| answer.min(next))
    }
}

/// Answers requests by an error for as long as there is no session.
pub(super) async fn refuse(requests: &mut mpsc::Receiver<Request>, events: &mpsc::Sender<Event>) {
    while let Some(request) = requests.recv().await {
        let message = format!("{request} not sent: there is no session with the VM");
        tell(events, request, failed(FailureKind::Other, message)).await;
    }
    future::pending::<()>().await;
}

/// The answer to a request that failed on this side.
pub(super) fn failed(kind: FailureKind, message: String) -> Answer {
    Answer::Error(Failure {
        kind,
        message,
        remedy: None,
    })
}

async fn tell(events: &mpsc::Sender<Event>, request: Request, answer: Answer) {
    // Nobody listens only while the process ends.
    let _ = events.send(Event::Reply { request, answer }).await;
}

fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{')
        && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// A foreign line, fit for a log.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .take(120)
        .flat_map(char::escape_debug)
        .collect()
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;
