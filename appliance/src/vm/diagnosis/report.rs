//! What was found so far.

use serde::Serialize;

use super::super::{Pairing, PublicKey};

/// Everything that is known about the way to a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The VM and the user on it.
    pub target: Pairing,
    /// In the order in which it was found out.
    pub findings: Vec<Finding>,
    /// The host keys that the VM shows; of a known VM, those that are pinned.
    #[serde(skip)]
    pub shown: Vec<PublicKey>,
    /// What to think of these.
    pub trust: Trust,
    /// Whether the key is refused, so that it has to be brought to the VM.
    pub key_refused: bool,
    /// Whether it is over.
    pub done: bool,
}

/// What to think of a VM's host keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Nobody has confirmed them, or they were not seen yet.
    New,
    /// They are pinned.
    Pinned,
    /// The paired VM shows others than the pinned ones.
    Alarm,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable name.
    pub id: String,
    /// What is looked at, in a few words.
    pub title: String,
    /// How it stands.
    pub state: State,
    /// What was found, one sentence; empty while it runs.
    pub sentence: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// Lines for a shell on the VM that do it.
    pub command: Option<String>,
}

/// How a check stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not done yet.
    Running,
    /// In order.
    Ok,
    /// Works, or waits for a person.
    Warning,
    /// Devices cannot be attached.
    Failed,
}

impl Report {
    pub(super) fn new(target: Pairing) -> Self {
        Self {
            target,
            findings: Vec::new(),
            shown: Vec::new(),
            trust: Trust::New,
            key_refused: false,
            done: false,
        }
    }

    /// Whether the whole way works.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.done
            && self
                .findings
                .iter()
                .all(|finding| finding.state != State::Failed)
    }

    pub(super) fn end(&mut self, in_time: bool) {
        self.done = true;
        if !in_time {
            for finding in &mut self.findings {
                if finding.state == State::Running {
                    finding.state = State::Failed;
                    "it did not come to an end in time".clone_into(&mut finding.sentence);
                }
            }
        }
    }
}

impl Finding {
    pub(super) fn running(id: &str, title: &str) -> Self {
        Self {
            id: id.to_owned(),
            title: title.to_owned(),
            state: State::Running,
            sentence: String::new(),
            remedy: None,
            command: None,
        }
    }

    pub(super) fn ok(self, sentence: impl Into<String>) -> Self {
        self.ended(State::Ok, sentence)
    }

    pub(super) fn warning(self, sentence: impl Into<String>) -> Self {
        self.ended(State::Warning, sentence)
    }

    pub(super) fn failed(self, sentence: impl Into<String>) -> Self {
        self.ended(State::Failed, sentence)
    }

    pub(super) fn remedy(mut self, remedy: Option<String>) -> Self {
        self.remedy = remedy;
        self
    }

    pub(super) fn command(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }

    fn ended(mut self, state: State, sentence: impl Into<String>) -> Self {
        self.state = state;
        self.sentence = sentence.into();
        self
    }
}
