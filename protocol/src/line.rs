//! The helper's line language: the Pi writes one [`Request`] per line, `usb-event-handler` answers
//! with one JSON [`Reply`] per line.
//!
//! The words are also one-shot commands: `ssh dev@vm connect 1-1.4`. Replies come in any order and
//! carry the request they answer in `re`; two replies have none: the hello that opens a session and
//! `settled`, which follows an `attached` when udev has made the links. Both sides ignore keys and
//! options that they do not know, so that neighbouring versions understand each other.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    alias::{Alias, AliasError},
    id::{BusId, BusIdError, DevId, DevIdError},
};

/// Version of the line language. Raised when an older side could misunderstand a newer one.
pub const PROTOCOL: u32 = 1;
/// The longest line either side accepts, in bytes without its newline.
pub const MAX_LINE: usize = 64 * 1024;
/// Grace time when nobody set one, in seconds (design: a switch reboots in 20 to 60 s).
pub const DEFAULT_GRACE_SECONDS: u16 = 30;
/// The grace times that may be set, in seconds.
pub const GRACE_SECONDS: std::ops::RangeInclusive<u16> = 5..=300;

/// Capability of a helper that takes [`Request::Aliases`].
pub const CAN_ALIAS: &str = "aliases";
/// Where the helper makes links under the names that people gave devices.
pub const ALIAS_DIR: &str = "/dev/usb-pi";

/// What the helper is told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Who is speaking; the first line of a session. Attachments of an earlier boot of the Pi end
    /// at once.
    Hello(PiHello),
    /// Attach a device; with a devid, only that generation of it. Attached already is a success.
    Connect(BusId, Option<DevId>),
    /// Detach a device; with a devid, only that generation of it. Not attached is a success.
    Disconnect(BusId, Option<DevId>),
    /// Every vhci port in use.
    Status,
    /// Are you there?
    Ping,
    /// Find what stands in the way of attaching.
    Check,
    /// All names that people gave devices which are plugged in, in place of those told before; in a
    /// session only. Asked of helpers with the capability [`CAN_ALIAS`].
    Aliases(Vec<Named>),
}

/// A device's generation and the name that a person gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The device.
    pub busid: BusId,
    /// Its generation: what is plugged in at the same place later does not inherit the name.
    pub devid: DevId,
    /// Its name.
    pub alias: Alias,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.busid, self.devid, self.alias)
    }
}

impl FromStr for Named {
    type Err = RequestError;

    fn from_str(word: &str) -> Result<Self, RequestError> {
        let mut parts = word.splitn(3, ',');
        let mut part = || parts.next().unwrap_or_default();
        Ok(Self {
            busid: part().parse()?,
            devid: part().parse()?,
            alias: part().parse()?,
        })
    }
}

/// The Pi's half of the greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PiHello {
    /// Version of the line language the Pi speaks.
    pub protocol: u32,
    /// Version of the appliance.
    pub version: String,
    /// The Pi's kernel boot id.
    pub boot_id: String,
    /// How long a silent attachment is held, in seconds.
    pub grace_seconds: u16,
    /// Whether its USB/IP server takes [`Request::Next`](crate::wire::Request::Next).
    pub gives_next: bool,
}

/// Why a line is no request. The text says what would be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Unknown first word.
    #[error("unknown command {0:?}: expected connect, disconnect, status, ping, check or hello")]
    Verb(String),
    /// A command lacks its busid.
    #[error("{0} needs a busid, as in \"{0} 1-1.4\"")]
    NoBusId(String),
    /// The busid is none.
    #[error(transparent)]
    BusId(#[from] BusIdError),
    /// The devid is none.
    #[error(transparent)]
    DevId(#[from] DevIdError),
    /// The alias is none.
    #[error(transparent)]
    Alias(#[from] AliasError),
    /// More words than the command has.
    #[error("unexpected word {0:?} after the command")]
    Extra(String),
    /// A hello's option is malformed or missing.
    #[error("hello needs {0}")]
    Hello(&'static str),
}

impl FromStr for Request {
    type Err = RequestError;

    fn from_str(line: &str) -> Result<Self, RequestError> {
        let shorten = |word: &str| word.chars().take(40).collect::<String>();
        let mut words = line.split_ascii_whitespace();
        let verb = words.next().unwrap_or_default();
        let request = match verb {
            "hello" => return parse_hello(words).map(Self::Hello),
            "connect" | "disconnect" => {
                let busid = words
                    .next()
                    .ok_or_else(|| RequestError::NoBusId(verb.to_owned()))?
                    .parse()?;
                let devid = words.next().map(str::parse).transpose()?;
                if verb == "connect" {
                    Self::Connect(busid, devid)
                } else {
                    Self::Disconnect(busid, devid)
                }
            }
            "status" => Self::Status,
            "ping" => Self::Ping,
            "check" => Self::Check,
            "aliases" => {
                return words
                    .map(str::parse)
                    .collect::<Result<_, _>>()
                    .map(Self::Aliases);
            }
            other => return Err(RequestError::Verb(shorten(other))),
        };
        match words.next() {
            None => Ok(request),
            Some(word) => Err(RequestError::Extra(shorten(word))),
        }
    }
}

fn parse_hello<'a>(words: impl Iterator<Item = &'a str>) -> Result<PiHello, RequestError> {
    let (mut protocol, mut version, mut boot_id, mut grace) = (None, None, None, None);
    let mut gives_next = false;
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        match key {
            "protocol" => protocol = value.parse().ok(),
            "version" => version = Some(value.to_owned()),
            "boot" => boot_id = Some(value.to_owned()),
            "grace" => {
                grace = value
                    .parse()
                    .ok()
                    .filter(|seconds| GRACE_SECONDS.contains(seconds));
            }
            "next" => gives_next = value == "yes",
            _ => {}
        }
    }
    Ok(PiHello {
        protocol: protocol.ok_or(RequestError::Hello("protocol=NUMBER"))?,
        version: version.ok_or(RequestError::Hello("version=VERSION"))?,
        boot_id: boot_id
            .filter(|id| is_boot_id(id))
            .ok_or(RequestError::Hello("boot=BOOT_ID"))?,
        grace_seconds: grace.unwrap_or(DEFAULT_GRACE_SECONDS),
        gives_next,
    })
}

/// Whether a text has the form of /proc/sys/kernel/random/boot_id.
#[must_use]
pub fn is_boot_id(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello(hello) => write!(
                f,
                "hello protocol={} version={} boot={} grace={}{}",
                hello.protocol,
                hello.version,
                hello.boot_id,
                hello.grace_seconds,
                if hello.gives_next { " next=yes" } else { "" }
            ),
            Self::Connect(busid, None) => write!(f, "connect {busid}"),
            Self::Connect(busid, Some(devid)) => write!(f, "connect {busid} {devid}"),
            Self::Disconnect(busid, None) => write!(f, "disconnect {busid}"),
            Self::Disconnect(busid, Some(devid)) => write!(f, "disconnect {busid} {devid}"),
            Self::Status => f.write_str("status"),
            Self::Ping => f.write_str("ping"),
            Self::Check => f.write_str("check"),
            Self::Aliases(list) => {
                f.write_str("aliases")?;
                list.iter().try_for_each(|named| write!(f, " {named}"))
            }
        }
    }
}

/// One line from the helper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request that this answers, as [`Request`] displays it; none for a hello or `settled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub re: Option<String>,
    /// The answer.
    #[serde(flatten)]
    pub answer: Answer,
}

/// What the helper says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Opens a session.
    Hello(VmHello),
    /// Answers hello: what was cleared because it belonged to an earlier boot of the Pi.
    Welcome {
        /// Devices that were detached.
        #[serde(default)]
        cleared: Vec<BusId>,
    },
    /// Answers connect: the ttys exist.
    Attached(Attachment),
    /// Follows `attached` in a session: udev is done with the ttys (links, permissions).
    Settled(Attachment),
    /// Answers disconnect.
    Detached {
        /// Whether there was anything to detach.
        was_attached: bool,
    },
    /// Answers status.
    Status(VmStatus),
    /// Answers ping.
    Pong {},
    /// Answers check.
    Checks(Vec<Check>),
    /// Answers aliases: the links are as told.
    Linked {},
    /// Any request may fail.
    Error(Failure),
}

/// The VM's half of the greeting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmHello {
    /// Version of the line language the helper speaks.
    pub protocol: u32,
    /// Version of vm-helper.
    pub version: String,
    /// The VM's kernel boot id.
    pub boot_id: String,
    /// The VM's host name.
    pub host_name: String,
    /// The VM's own address on the way to the Pi, from which its imports will come.
    #[serde(default)]
    pub address: Option<std::net::IpAddr>,
    /// What this helper can do beyond its protocol version.
    #[serde(default)]
    pub capabilities: Vec<String>,
}

/// A device attached on the VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The device's name on the Pi.
    pub busid: BusId,
    /// Its generation.
    pub devid: DevId,
    /// Number of the vhci port, as in `usbip port`.
    pub port: u32,
    /// The device's name on the VM, such as `3-1`; none while it enumerates.
    #[serde(default)]
    pub local_busid: Option<BusId>,
    /// Its serial lines; two for an FT2232, none while they appear or when no driver has them.
    #[serde(default)]
    pub ttys: Vec<Tty>,
    /// How long the parts took; only in the answer to the connect that attached it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
}

/// A serial line on the VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tty {
    /// Device node, such as `/dev/ttyUSB0`.
    pub node: String,
    /// Link below `/dev/serial/by-id`, when udev has made one.
    #[serde(default)]
    pub by_id: Option<String>,
    /// Kernel driver of the USB interface, such as `ftdi_sio`.
    #[serde(default)]
    pub driver: Option<String>,
}

/// Milliseconds that the parts of an attach took on the VM.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// From the request to the Pi's reply to the import.
    pub import_ms: f64,
    /// Writing vhci's `attach`.
    pub attach_ms: f64,
    /// From there until the device had been enumerated.
    pub enumerate_ms: f64,
    /// From there until all ttys existed.
    pub tty_ms: f64,
}

/// The VM's vhci ports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VmStatus {
    /// The VM's kernel boot id.
    pub boot_id: String,
    /// Devices attached from this Pi.
    pub attachments: Vec<Attachment>,
    /// Ports free for low-, full- and high-speed devices.
    pub ports_free: u32,
    /// All ports for low-, full- and high-speed devices.
    pub ports_total: u32,
}

/// The [`Check::id`] of the finding that names the helper's version: `vm-helper VERSION`.
pub const VERSION_CHECK: &str = "version";
/// The [`Check::id`] of the finding that the Pi was reached on its USB/IP port and let nobody in, as
/// it does before it is paired.
pub const NOT_LET_IN_CHECK: &str = "pi_not_paired";

/// One finding of `check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Stable name, such as `vhci`.
    pub id: String,
    /// How it stands.
    pub state: CheckState,
    /// What was found, one sentence.
    pub finding: String,
    /// The command or act that mends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// A line for a shell on the VM that mends it, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// In order.
    Ok,
    /// Works, but may bite.
    Warning,
    /// Devices cannot be attached.
    Failed,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure, for programs.
    pub kind: FailureKind,
    /// What happened, for people.
    pub message: String,
    /// The command or act that mends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The line was no request.
    BadRequest,
    /// Not root, and sudo does not let us be.
    NotPermitted,
    /// The kernel module `vhci_hcd` is missing or not loaded.
    VhciMissing,
    /// Every vhci port of the right speed is taken.
    NoFreePort,
    /// Port 3240 of the Pi does not answer.
    PiUnreachable,
    /// pi.conf is missing or wrong.
    Config,
    /// The Pi refused the import.
    Refused,
    /// The device is another generation than the one asked for.
    Superseded,
    /// The device did not enumerate, or no tty appeared, in time.
    Timeout,
    /// A system call or sysfs file failed.
    System,
    /// A kind that this version does not know.
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOOT_ID: &str = "0d3b2c1a-0000-4000-8000-1234567890ab";

    fn busids() -> impl Strategy<Value = BusId> {
        (1u8..9, proptest::collection::vec(1u8..16, 1..5)).prop_map(|(bus, ports)| {
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            format!("{bus}-{}", ports.join(".")).parse().unwrap()
        })
    }

    fn requests() -> impl Strategy<Value = Request> {
        let devids = || proptest::option::of(any::<u32>().prop_map(DevId));
        prop_oneof![
            (busids(), devids()).prop_map(|(busid, devid)| Request::Connect(busid, devid)),
            (busids(), devids()).prop_map(|(busid, devid)| Request::Disconnect(busid, devid)),
            (any::<u32>(), GRACE_SECONDS, any::<bool>()).prop_map(
                |(protocol, grace_seconds, gives_next)| Request::Hello(PiHello {
                    protocol,
                    version: "0.1.0".into(),
                    boot_id: BOOT_ID.into(),
                    grace_seconds,
                    gives_next,
                })
            ),
            Just(Request::Status),
            Just(Request::Ping),
            Just(Request::Check),
            proptest::collection::vec((busids(), any::<u32>(), "[a-z0-9][a-z0-9._-]{0,31}"), 0..5)
                .prop_map(|list| Request::Aliases(
                    list.into_iter()
                        .map(|(busid, devid, alias)| Named {
                            busid,
                            devid: DevId(devid),
                            alias: alias.parse().unwrap(),
                        })
                        .collect()
                )),
        ]
    }

    proptest! {
        #[test]
        fn requests_round_trip(request in requests()) {
            prop_assert_eq!(request.to_string().parse(), Ok(request));
        }

        #[test]
        fn garbage_is_refused_without_panic(line in ".{0,200}") {
            let _ = line.parse::<Request>();
        }

        #[test]
        fn mangled_requests_never_panic(request in requests(), cut in 0usize..40, word in ".{0,8}") {
            let text: String = request.to_string().chars().take(cut).collect();
            let _ = format!("{text}{word}").parse::<Request>();
            let _ = serde_json::from_str::<Reply>(&format!("{{{text}}}"));
        }
    }

    #[test]
    fn the_seeds_words_work() {
        assert_eq!(
            "connect 1-1.1".parse(),
            Ok(Request::Connect("1-1.1".parse().unwrap(), None))
        );
        assert_eq!(
            "disconnect 1-1.1\n".parse(),
            Ok(Request::Disconnect("1-1.1".parse().unwrap(), None))
        );
        assert_eq!("status".parse(), Ok(Request::Status));
    }

    #[test]
    fn errors_name_the_remedy() {
        let text = |line: &str| line.parse::<Request>().unwrap_err().to_string();
        assert_eq!(
            text("conect 1-1"),
            "unknown command \"conect\": expected connect, disconnect, status, ping, check or hello"
        );
        assert_eq!(
            text("connect"),
            "connect needs a busid, as in \"connect 1-1.4\""
        );
        assert_eq!(
            text("connect ../../x"),
            "\"../../x\" is not a busid: expected bus and ports such as 1-1.4"
        );
        assert_eq!(
            text("connect 1-1 4"),
            "\"4\" is not a devid: expected eight hex digits such as 00010004"
        );
        assert_eq!(
            text("connect 1-1 00010004 ; rm -rf /"),
            "unexpected word \";\" after the command"
        );
        assert_eq!(
            text("hello protocol=1 version=1"),
            "hello needs boot=BOOT_ID"
        );
    }

    #[test]
    fn unknown_options_keys_and_kinds_are_ignored() {
        let hello = format!("hello protocol=2 version=9.0 boot={BOOT_ID} colour=blue shiny");
        assert!(
            matches!(hello.parse(), Ok(Request::Hello(h)) if h.grace_seconds == DEFAULT_GRACE_SECONDS)
        );
        let reply: Reply = serde_json::from_str(
            r#"{"re":"connect 1-1","error":{"kind":"on_fire","message":"m","since":3},"extra":[1]}"#,
        )
        .unwrap();
        assert!(matches!(reply.answer, Answer::Error(f) if f.kind == FailureKind::Other));
    }

    #[test]
    fn replies_look_like_this() {
        let reply = Reply {
            re: Some("connect 1-1 00010004".into()),
            answer: Answer::Attached(Attachment {
                busid: "1-1".parse().unwrap(),
                devid: DevId(0x0001_0004),
                port: 0,
                local_busid: Some("3-1".parse().unwrap()),
                ttys: vec![Tty {
                    node: "/dev/ttyUSB0".into(),
                    by_id: None,
                    driver: Some("ftdi_sio".into()),
                }],
                timings: None,
            }),
        };
        let json = serde_json::to_string(&reply).unwrap();
        assert_eq!(
            json,
            r#"{"re":"connect 1-1 00010004","attached":{"busid":"1-1","devid":"00010004","port":0,"local_busid":"3-1","ttys":[{"node":"/dev/ttyUSB0","by_id":null,"driver":"ftdi_sio"}]}}"#
        );
        assert_eq!(serde_json::from_str::<Reply>(&json).unwrap(), reply);
        assert_eq!(
            serde_json::to_string(&Reply {
                re: Some("ping".into()),
                answer: Answer::Pong {}
            })
            .unwrap(),
            r#"{"re":"ping","pong":{}}"#
        );
    }
}
