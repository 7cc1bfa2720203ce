//! The way from the Pi's SSH session to root: an SSH forced command, then one sudo rule.
//!
//! sshd puts what the Pi asked for into `SSH_ORIGINAL_COMMAND`. It is parsed here, never seen by a
//! shell, and handed on as the words that the parsed request displays as: nothing else gets through.

use std::{
    ffi::OsString,
    io::{self, BufRead, BufReader, Write},
    process::{Command, ExitStatus, Stdio},
    thread,
};

use protocol::line::{Request, RequestError};

use crate::failure::Error;

/// The one program of the sudo rule.
pub const HANDLER: &str = "/usr/bin/usb-event-handler";
/// The word that opens a session.
pub const SESSION: &str = "session";

/// What the handler may be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Requests on stdin until it ends.
    Session,
    /// One request.
    Request(Request),
}

impl Order {
    /// Parse words, such as those of `SSH_ORIGINAL_COMMAND`. The handler's own name in front is
    /// dropped. A hello and aliases make sense in a session only.
    pub fn parse(text: &str) -> Result<Self, RequestError> {
        let mut words: Vec<&str> = text.split_ascii_whitespace().collect();
        if words
            .first()
            .is_some_and(|word| word.rsplit('/').next() == Some("usb-event-handler"))
        {
            words.remove(0);
        }
        if words == [SESSION] {
            return Ok(Self::Session);
        }
        match words.join(" ").parse()? {
            Request::Hello(_) => Err(RequestError::Verb("hello".into())),
            Request::Aliases(_) => Err(RequestError::Verb("aliases".into())),
            request => Ok(Self::Request(request)),
        }
    }

    /// The order as words for a command line.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        match self {
            Self::Session => vec![SESSION.into()],
            Self::Request(request) => request
                .to_string()
                .split(' ')
                .map(ToOwned::to_owned)
                .collect(),
        }
    }
}

/// Carry the order out as root. Returns how the handler ended, or that sudo refused.
///
/// sudo runs as a child and not in our place, because its refusal is to be told in the language
/// that the Pi understands; where sudo may, it becomes the handler itself.
pub fn as_root(order: &Order, json: bool) -> Result<ExitStatus, Error> {
    let mut sudo = Command::new("/usr/bin/sudo");
    sudo.args(["-n", "--", HANDLER]).args(order.words());
    if json && *order != Order::Session {
        sudo.arg("--json");
    }
    let failed = |source: io::Error| Error::NotPermitted {
        user: user_name(),
        said: format!("/usr/bin/sudo cannot be run: {source}"),
    };
    let mut child = sudo.stderr(Stdio::piped()).spawn().map_err(failed)?;
    let stderr = child.stderr.take();
    let relay = thread::spawn(move || {
        let mut refusal = None;
        for line in stderr
            .into_iter()
            .flat_map(|pipe| BufReader::new(pipe).lines())
        {
            let Ok(line) = line else { break };
            match line.strip_prefix("sudo: ") {
                Some(said) => refusal = Some(said.to_owned()),
                // Whoever reads our log may have gone.
                None => drop(writeln!(io::stderr(), "{line}")),
            }
        }
        refusal
    });
    let status = child.wait().map_err(failed)?;
    match relay.join().unwrap_or_default() {
        Some(said) if !status.success() => Err(Error::NotPermitted {
            user: user_name(),
            said,
        }),
        _ => Ok(status),
    }
}

fn user_name() -> String {
    ["USER", "LOGNAME"]
        .iter()
        .find_map(std::env::var_os)
        .unwrap_or_else(|| OsString::from("this user"))
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Option<String> {
        Order::parse(text).ok().map(|order| order.words().join(" "))
    }

    #[test]
    fn the_seeds_commands_are_taken() {
        for (text, expected) in [
            ("connect 1-1.1", "connect 1-1.1"),
            ("usb-event-handler disconnect 1-1", "disconnect 1-1"),
            ("/usr/local/bin/usb-event-handler  status", "status"),
            (" session ", "session"),
            ("usb-event-handler session", "session"),
            ("connect 1-1 00010004", "connect 1-1 00010004"),
        ] {
            assert_eq!(words(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn nothing_else_is() {
        for text in [
            "",
            "sh",
            "connect 1-1; reboot",
            "connect 1-1 && reboot",
            "connect $(reboot)",
            "connect `reboot`",
            "session x",
            "usb-event-handler usb-event-handler session",
            "sudo connect 1-1",
            "connect --help",
            "status --root=/tmp",
            "aliases",
            "aliases 1-1,00010004,board",
            "hello protocol=1 version=1 boot=0d3b2c1a-0000-4000-8000-1234567890ab",
        ] {
            assert_eq!(words(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn only_harmless_words_get_through(text in "(usb-event-handler )?(session|connect|disconnect|status|ping|check)?.{0,60}") {
            if let Ok(order) = Order::parse(&text) {
                for (n, word) in order.words().iter().enumerate() {
                    prop_assert!(!word.is_empty());
                    let verb = ["session", "connect", "disconnect", "status", "ping", "check"].contains(&word.as_str());
                    let id = word.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-' || b == b'.') && !word.starts_with('-');
                    prop_assert!(if n == 0 { verb } else { id }, "{}", word);
                }
                prop_assert_eq!(Order::parse(&order.words().join(" ")), Ok(order));
            }
        }
    }
}
