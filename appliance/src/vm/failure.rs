//! Why there is no session, told apart from what ssh, sudo and the helper say.
//!
//! Texts differ between versions of OpenSSH, so only parts are looked for that have been the same
//! since 7.x; what is not recognised is shown as it is.

use std::io;

use protocol::line::{Failure as HelperFailure, FailureKind as HelperKind};

use super::event::{Failure, FailureKind, Pairing};

/// What the sentences need to know.
#[derive(Debug, Clone)]
pub(super) struct Context {
    /// Whom the session was for.
    pub pairing: Pairing,
    /// The line for authorized_keys.
    pub authorized_keys_line: String,
    /// Fingerprints of the pinned host keys.
    pub pinned: Vec<String>,
}

/// How to pair anew, as a remedy.
const PAIR_AGAIN: &str = "if the VM was reinstalled, pair it again in the portal: that pins its new key; if it was not, find out who answers at its address";

/// A failure from its parts.
pub(super) fn failure(
    kind: FailureKind,
    message: impl Into<String>,
    remedy: impl Into<String>,
) -> Failure {
    Failure {
        kind,
        message: message.into(),
        remedy: Some(remedy.into()),
    }
}

/// An error and what caused it, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}

impl Context {
    /// No TCP connection to any of the VM's addresses; the error is the last one's.
    pub fn unreachable(&self, address: &str, port: u16, error: &io::Error) -> Failure {
        let host = &self.pairing.host;
        let place = if host == address {
            format!("{host} port {port}")
        } else {
            format!("{host} ({address}) port {port}")
        };
        let (how, remedy) = match error.kind() {
            io::ErrorKind::ConnectionRefused => (
                "refuses connections".to_owned(),
                "start the VM's SSH server: sudo apt install openssh-server",
            ),
            io::ErrorKind::TimedOut => (
                "does not answer".to_owned(),
                "check that the VM runs and that no firewall drops connections from the Pi",
            ),
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => (
                format!("cannot be reached: {error}"),
                "check that the VM runs, that its address is right, and the network between",
            ),
            _ => (
                format!("cannot be reached: {error}"),
                "check that the VM runs and the network between",
            ),
        };
        failure(FailureKind::Unreachable, format!("{place} {how}"), remedy)
    }

    /// The host name has no address.
    pub fn no_address(&self, why: &str) -> Failure {
        let host = &self.pairing.host;
        failure(
            FailureKind::Name,
            format!("the name {host} has no address: {why}"),
            "check VM_HOST, or give the VM's address in place of its name",
        )
    }

    /// Nothing is pinned yet.
    pub fn host_key_unknown(&self) -> Failure {
        failure(
            FailureKind::HostKeyUnknown,
            format!(
                "the host key of {} has not been confirmed yet",
                self.pairing.host
            ),
            "pair the VM in the portal, or run the portal's one line on the VM",
        )
    }

    /// ssh ended before there was a session, and said this.
    pub fn ssh(&self, text: &str) -> Failure {
        let Pairing { host, user } = &self.pairing;
        let says = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
        if says(&[
            "HOST IDENTIFICATION HAS CHANGED",
            "host key is known for",
            "Host key verification failed",
        ]) {
            let offered = text
                .split(|c: char| c.is_whitespace())
                .find(|word| word.starts_with("SHA256:"))
                .map_or("another kind of key", |word| word.trim_end_matches('.'));
            return failure(
                FailureKind::HostKeyChanged,
                format!(
                    "the host key of {host} is not the one that was pinned: it shows {offered}, pinned is {}",
                    self.pinned.join(" or ")
                ),
                PAIR_AGAIN,
            );
        }
        if says(&["Load key", "UNPROTECTED PRIVATE KEY", "no such identity"]) {
            return failure(
                FailureKind::Key,
                format!("ssh cannot use the Pi's key: {}", last_line(text)),
                "remove the key's files below /data/ssh and restart: a new key is made, and has to be brought to the VM",
            );
        }
        if says(&["Permission denied (", "Too many authentication failures"]) {
            return failure(
                FailureKind::Login,
                format!("{host} does not let the Pi log in as {user}"),
                format!(
                    "on the VM, add this line to ~{user}/.ssh/authorized_keys: {}",
                    self.authorized_keys_line
                ),
            );
        }
        if says(&["timed out", "timeout"]) {
            return failure(
                FailureKind::Unreachable,
                format!("the SSH server of {host} accepts connections and does not answer"),
                "look at the VM: it may be overloaded or just starting",
            );
        }
        if says(&[
            "Connection closed",
            "Connection reset",
            "closed by remote host",
            "Not allowed at this time",
        ]) {
            return failure(
                FailureKind::Unreachable,
                format!("the SSH server of {host} closed the connection before the login"),
                "wait if the VM is starting; otherwise see journalctl -u ssh on the VM (MaxStartups, PerSourcePenalties, AllowUsers, nologin)",
            );
        }
        failure(
            FailureKind::Unreachable,
            format!("ssh to {host} failed: {}", last_line(text)),
            "see journalctl -u ssh on the VM",
        )
    }

    /// The helper ended or spoke otherwise before it greeted. `stderr` holds what sudo, the shell or
    /// the helper wrote.
    pub fn no_greeting(&self, ended: Ended, stderr: &str) -> Failure {
        let says = |parts: &[&str]| parts.iter().any(|part| stderr.contains(part));
        let told = last_line(stderr);
        // Before sudo's own complaints: "sudo: usb-event-handler: command not found" is one, too.
        if ended == Ended::NotFound || says(&["command not found", "handler: not found"]) {
            return failure(
                FailureKind::Helper,
                format!(
                    "usb-event-handler is not installed on {}",
                    self.pairing.host
                ),
                "install the package usbip-vm-helper on the VM; the portal shows the one line that does it",
            );
        }
        if says(&["sudo: ", "is not in the sudoers file"]) {
            return self.sudo(told);
        }
        let how = match ended {
            Ended::Exited | Ended::NotFound => "ended without a greeting",
            Ended::Silent => "did not greet in time",
            Ended::Babbling => "is not what answered: lines came that are none of its own",
        };
        let detail = if told.is_empty() {
            String::new()
        } else {
            format!(": {told}")
        };
        failure(
            FailureKind::Helper,
            format!("usb-event-handler on {} {how}{detail}", self.pairing.host),
            "run on the VM: vm-helper check",
        )
    }

    /// The helper refused the session.
    pub fn helper(&self, said: &HelperFailure) -> Failure {
        if said.kind == HelperKind::NotPermitted {
            let mut failure = self.sudo(&said.message);
            failure.remedy = said.remedy.clone().or(failure.remedy);
            return failure;
        }
        let remedy = said.remedy.clone();
        failure(
            FailureKind::Helper,
            format!(
                "usb-event-handler on {}: {}",
                self.pairing.host, said.message
            ),
            remedy.unwrap_or_else(|| "run on the VM: vm-helper check".to_owned()),
        )
    }

    fn sudo(&self, told: &str) -> Failure {
        let Pairing { host, user } = &self.pairing;
        failure(
            FailureKind::Sudo,
            format!("sudo on {host} does not let {user} run usb-event-handler as root: {told}"),
            format!(
                "on the VM, run: sudo usermod -aG usbip {user} (the package's rule /etc/sudoers.d/usbip is for that group)"
            ),
        )
    }

    /// A session broke.
    pub fn lost(&self, why: &str) -> Failure {
        Failure {
            kind: FailureKind::Lost,
            message: format!("the session with {} broke: {why}", self.pairing.host),
            remedy: None,
        }
    }
}

/// How a helper failed to greet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Exit status 127.
    NotFound,
    /// Any other end.
    Exited,
    /// It runs and says nothing.
    Silent,
    /// Something speaks, but not the line language.
    Babbling,
}

/// The last line that says something, bounded. ssh names the outcome there.
pub(super) fn last_line(text: &str) -> &str {
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    let line = line.unwrap_or_default();
    let end = line
        .char_indices()
        .nth(300)
        .map_or(line.len(), |(at, _)| at);
    &line[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context {
            pairing: Pairing {
                host: "vm.local".into(),
                user: "dev".into(),
            },
            authorized_keys_line: "restrict ssh-ed25519 AAAA usbip-pi".into(),
            pinned: vec!["SHA256:old".into()],
        }
    }

    #[test]
    fn what_ssh_says_is_told_apart() {
        let changed = "@@@@@@@\r\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\r\n@@@@\r\nThe fingerprint for the ED25519 key sent by the remote host is\nSHA256:new.\r\nPlease contact your system administrator.\r\nHost key verification failed.\r\n";
        let cases = [
            (
                changed,
                FailureKind::HostKeyChanged,
                "shows SHA256:new, pinned is SHA256:old",
            ),
            (
                "No ED25519 host key is known for usbip-vm and you have requested strict checking.\r\nHost key verification failed.",
                FailureKind::HostKeyChanged,
                "another kind of key",
            ),
            (
                "dev@10.0.0.2: Permission denied (publickey).",
                FailureKind::Login,
                "log in as dev",
            ),
            (
                "Load key \"/data/ssh/id_ed25519\": error in libcrypto\r\ndev@10.0.0.2: Permission denied (publickey).",
                FailureKind::Key,
                "the Pi's key",
            ),
            (
                "Connection timed out during banner exchange\r\nConnection to 10.0.0.2 port 22 timed out",
                FailureKind::Unreachable,
                "does not answer",
            ),
            (
                "kex_exchange_identification: read: Connection reset by peer\r\nConnection reset by 10.0.0.2 port 22",
                FailureKind::Unreachable,
                "closed the connection",
            ),
            (
                "Unable to negotiate with 10.0.0.2 port 22: no matching cipher found.",
                FailureKind::Unreachable,
                "no matching cipher",
            ),
        ];
        for (text, kind, part) in cases {
            let failure = context().ssh(text);
            assert_eq!(failure.kind, kind, "{text}");
            assert!(failure.message.contains(part), "{}", failure.message);
            assert!(failure.remedy.is_some());
        }
        let login = context()
            .ssh("Permission denied (publickey,password).")
            .remedy
            .unwrap();
        assert!(login.contains("~dev/.ssh/authorized_keys: restrict ssh-ed25519 AAAA"));
    }

    #[test]
    fn what_the_helper_says_is_told_apart() {
        let cases = [
            (
                Ended::Exited,
                "sudo: a password is required\n",
                FailureKind::Sudo,
                "password is required",
            ),
            (
                Ended::NotFound,
                "bash: line 1: usb-event-handler: command not found\n",
                FailureKind::Helper,
                "not installed",
            ),
            (Ended::NotFound, "", FailureKind::Helper, "not installed"),
            (Ended::Exited, "", FailureKind::Helper, "without a greeting"),
            (Ended::Silent, "", FailureKind::Helper, "in time"),
        ];
        for (ended, stderr, kind, part) in cases {
            let failure = context().no_greeting(ended, stderr);
            assert_eq!(failure.kind, kind, "{stderr}");
            assert!(failure.message.contains(part), "{}", failure.message);
        }
    }
}
