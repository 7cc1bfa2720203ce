//! QEMU's control socket (QMP): one JSON object per line, commands answered in order, events in between.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long QEMU may take to answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Events kept for [`Qmp::wait_event`].
const EVENTS: usize = 256;

/// Why a command had no effect.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket: QEMU has ended or hangs.
    #[error("failed to talk to QEMU about {command}")]
    Io {
        /// The command.
        command: String,
        /// The cause.
        source: io::Error,
    },
    /// QEMU said no.
    #[error("failed to {command}: QEMU says {why}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's description.
        why: String,
    },
}

/// A connection that has been greeted.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Takes over a connected socket and leaves negotiation mode.
    pub fn new(stream: UnixStream) -> Result<Self, Error> {
        let failed = |source| Error::Io {
            command: "the greeting".to_owned(),
            source,
        };
        stream.set_read_timeout(Some(ANSWER)).map_err(failed)?;
        let reader = BufReader::new(stream.try_clone().map_err(failed)?);
        let mut qmp = Self {
            stream,
            reader,
            events: VecDeque::new(),
        };
        qmp.read().map_err(failed)?;
        qmp.run("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns its result.
    pub fn run(&mut self, command: &str, arguments: &Value) -> Result<Value, Error> {
        let failed = |source| Error::Io {
            command: command.to_owned(),
            source,
        };
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.stream.write_all(line.as_bytes()).map_err(failed)?;
        loop {
            let mut answer = self.read().map_err(failed)?;
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
            if let Some(error) = answer.get("error") {
                let why = error["desc"].as_str().unwrap_or_default().to_owned();
                return Err(Error::Refused {
                    command: format!("{command} {arguments}"),
                    why,
                });
            }
            self.keep(answer);
        }
    }

    /// Waits until QEMU has reported `event` about `device`.
    pub fn wait_event(&mut self, event: &str, device: &str) -> Result<(), Error> {
        let matches = |seen: &Value| seen["event"] == event && seen["data"]["device"] == device;
        let end = Instant::now() + ANSWER;
        loop {
            if let Some(index) = self.events.iter().position(matches) {
                self.events.remove(index);
                return Ok(());
            }
            let failed = |source| Error::Io {
                command: format!("{event} of {device}"),
                source,
            };
            if Instant::now() > end {
                return Err(failed(io::ErrorKind::TimedOut.into()));
            }
            let seen = self.read().map_err(failed)?;
            self.keep(seen);
        }
    }

    fn keep(&mut self, message: Value) {
        if message.get("event").is_some() {
            if self.events.len() == EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(message);
        }
    }

    fn read(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_str(&line).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// A QEMU that answers each command with the next of `answers`.
    fn qemu(answers: &'static [&'static str]) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            let mut out = theirs.try_clone().unwrap();
            out.write_all(b"{\"QMP\": {}}\n").unwrap();
            for (line, answer) in BufReader::new(theirs).lines().zip(answers) {
                let _: Value = serde_json::from_str(&line.unwrap()).unwrap();
                out.write_all(answer.as_bytes()).unwrap();
            }
        });
        ours
    }

    #[test]
    fn events_between_answers_are_kept() {
        let mut qmp = Qmp::new(qemu(&[
            "{\"return\": {}}\n",
            "{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"d1\"}}\n{\"return\": {}}\n",
        ]))
        .unwrap();
        qmp.run("device_del", &json!({ "id": "d1" })).unwrap();
        qmp.wait_event("DEVICE_DELETED", "d1").unwrap();
    }

    #[test]
    fn a_refusal_carries_the_reason() {
        let mut qmp = Qmp::new(qemu(&[
            "{\"return\": {}}\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such bus\"}}\n",
        ]))
        .unwrap();
        let err = qmp.run("device_add", &json!({})).unwrap_err();
        assert!(err.to_string().contains("no such bus"), "{err}");
    }
}
