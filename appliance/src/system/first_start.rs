//! `usbip-pi.toml`: settings for a box that has no screen yet, put on the card's FAT partition by a
//! person. All of it is used, or nothing when any of it is wrong.
//!
//! Used once: what was used last is remembered by its SHA-256 on /data, so the FAT partition is never
//! written and a power cut cannot hurt it. A changed file is used again, and so is the same one after
//! /data was lost.

use std::{
    error::Error as _,
    fs::{self, File},
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{conf_file::Problem, durable};
use crate::vm::{self, Pairing};

/// Where a report about a wrong file is left for the portal and the screen.
pub const REPORT: &str = "/run/usbip-pi.toml.report";
/// The largest file that is read, in bytes; a full one has about 500.
const MAX_SIZE: u64 = 64 * 1024;
/// The longest host name, in characters (RFC 1035, 2.3.1).
const MAX_HOSTNAME: usize = 63;
/// The most memory that checking a password may take, in KiB, on a box with 512 MiB.
const MAX_HASH_MEMORY: u32 = 64 * 1024;
/// Rounds and lanes beyond this would let a sign-in take minutes.
const MAX_HASH_ROUNDS: u32 = 10;

/// Why the file was not used.
#[derive(Debug, thiserror::Error)]
pub enum FirstStartError {
    /// It cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no TOML, or has a key that means nothing here.
    #[error("usbip-pi.toml, line {line}: {problem}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// The parser's words.
        problem: String,
    },
    /// A value cannot be used.
    #[error("usbip-pi.toml, {key}: {problem}")]
    Value {
        /// Such as `network.address`.
        key: &'static str,
        /// What is wrong, and what would be right.
        problem: Problem,
    },
    /// A setting cannot be kept.
    #[error("failed to write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    hostname: Option<String>,
    network: Option<Network>,
    vm: Option<Vm>,
    portal: Option<Portal>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Network {
    address: String,
    gateway: Option<String>,
    #[serde(default)]
    dns: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vm {
    host: String,
    user: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Portal {
    password_hash: String,
}

/// What to write where, below /data; nothing where a file is to go.
type Writes = Vec<(&'static str, u32, Option<String>)>;

/// The address that takes a fixed one back.
const DHCP: &str = "dhcp";

/// Use the file at `path` for the box whose data is in `data`. False when it was used before or there
/// is none. Blocks for as long as the disk takes.
pub fn configure(path: &Path, data: &Path) -> Result<bool, FirstStartError> {
    let Some(text) = read(path)? else {
        return Ok(false);
    };
    let used = data.join("first-start");
    let mark = format!("{:x}\n", Sha256::digest(&text));
    if fs::read_to_string(&used).is_ok_and(|last| last == mark) {
        return Ok(false);
    }
    let settings = parse(&text)?;
    let (writes, pairing) = check(settings)?;
    for (name, mode, content) in writes {
        let path = data.join(name);
        match content {
            Some(content) => write(&path, mode, &content)?,
            None => remove(&path)?,
        }
    }
    if let Some(pairing) = pairing {
        let path = data.join("usbip/vm.conf");
        make_folder_of(&path)?;
        vm::conf::write(&path, &pairing).map_err(|error| FirstStartError::Write {
            path,
            source: io::Error::other(error),
        })?;
    }
    // Last: a power cut before this has the same file used again.
    write(&used, 0o644, &mark)?;
    Ok(true)
}

/// `appliance configure FILE`: uses the file, says how it went in the log, and leaves a report where it
/// was wrong. The start of the box goes on either way.
pub fn run(path: &Path) {
    match configure(path, Path::new("/data")) {
        Ok(true) => println!("<5>{} is used", path.display()),
        Ok(false) => {}
        Err(error) => {
            let cause = error.source().map(|source| format!(": {source}"));
            let cause = cause.unwrap_or_default();
            let report = format!("{error}{cause}. Nothing in it is used.");
            println!("<3>{report}");
            if let Err(error) = fs::write(REPORT, report) {
                println!("<3>failed to write {REPORT}: {error}");
            }
        }
    }
}

/// What was wrong with the file at this start of the box.
#[must_use]
pub fn report() -> Option<String> {
    fs::read_to_string(REPORT).ok()
}

fn read(path: &Path) -> Result<Option<String>, FirstStartError> {
    let failed = |source| FirstStartError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(failed(io::Error::other(
            "it is too large for a settings file",
        )));
    }
    // As some editors leave it.
    let text = String::from_utf8(bytes)
        .map_err(|_| failed(io::Error::other("it is not a UTF-8 text; save it as one")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
    Ok(Some(text))
}

fn parse(text: &str) -> Result<Settings, FirstStartError> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().map_or(0, |span| span.start).min(text.len());
        FirstStartError::Syntax {
            line: text.bytes().take(before).filter(|b| *b == b'\n').count() + 1,
            problem: error.message().lines().collect::<Vec<_>>().join(" "),
        }
    })
}

fn check(settings: Settings) -> Result<(Writes, Option<Pairing>), FirstStartError> {
    let mut writes = Vec::new();
    if let Some(hostname) = settings.hostname {
        check_hostname(&hostname).map_err(value("hostname"))?;
        writes.push(("network/hostname", 0o644, Some(format!("{hostname}\n"))));
    }
    if let Some(network) = settings.network {
        writes.push(("network/static", 0o644, check_network(&network)?));
    }
    if let Some(portal) = settings.portal {
        let hash = portal.password_hash.trim();
        check_hash(hash).map_err(value("portal.password_hash"))?;
        writes.push(("portal/password", 0o600, Some(format!("{hash}\n"))));
    }
    let pairing = settings.vm.map(|vm| {
        vm::conf::check_host(&vm.host).map_err(value("vm.host"))?;
        let user = vm.user.unwrap_or_else(|| vm::conf::DEFAULT_USER.to_owned());
        vm::conf::check_user(&user).map_err(value("vm.user"))?;
        let host = vm.host;
        Ok(Pairing { host, user })
    });
    Ok((writes, pairing.transpose()?))
}

fn value(key: &'static str) -> impl Fn(Problem) -> FirstStartError {
    move |problem| FirstStartError::Value { key, problem }
}

fn check_hostname(name: &str) -> Result<(), Problem> {
    let fits = (1..=MAX_HOSTNAME).contains(&name.len())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits {
        return Ok(());
    }
    Err(Problem::new(
        format!("{name:?} is no host name"),
        "letters, digits and dashes, such as \"usbip-pi\"",
    ))
}

/// The KEY=VALUE lines that `/etc/network/up` reads; none for DHCP.
fn check_network(network: &Network) -> Result<Option<String>, FirstStartError> {
    if network.address.eq_ignore_ascii_case(DHCP) {
        if network.gateway.is_some() || !network.dns.is_empty() {
            let problem = Problem::new(
                "DHCP brings its own gateway and name servers",
                "the address alone, or a fixed one with them",
            );
            return Err(value("network.address")(problem));
        }
        return Ok(None);
    }
    let address = network.address.split_once('/');
    let parsed = address.and_then(|(address, length)| {
        let address: Ipv4Addr = address.parse().ok()?;
        let length: u32 = length.parse().ok()?;
        // A network has two addresses that are nobody's.
        let host = host_bits(length);
        let number = address.to_bits() & host;
        let is_one = length > 30 || (number != 0 && number != host);
        let is_usable = is_one && !address.is_loopback() && !address.is_multicast();
        (is_usable && (1..=32).contains(&length)).then_some((address, length))
    });
    let Some((address, length)) = parsed else {
        let problem = Problem::new(
            format!(
                "{:?} is no address of a machine with a prefix length",
                network.address
            ),
            "an address and its prefix length, such as \"192.168.1.50/24\", or \"dhcp\"",
        );
        return Err(value("network.address")(problem));
    };
    let mut lines = format!("ADDRESS={address}/{length}\n");
    let parse = |key, text: &str| {
        text.parse::<IpAddr>().map_err(|_| {
            let found = format!("{text:?} is no address");
            value(key)(Problem::new(found, "an address such as \"192.168.1.1\""))
        })
    };
    if let Some(gateway) = &network.gateway {
        let parsed = parse("network.gateway", gateway)?;
        let is_near = matches!(parsed, IpAddr::V4(gateway) if gateway != address
            && (gateway.to_bits() ^ address.to_bits()) & !host_bits(length) == 0);
        if !is_near {
            let problem = Problem::new(
                format!("{gateway:?} is not on the network of {address}/{length}"),
                "the router's address on that network",
            );
            return Err(value("network.gateway")(problem));
        }
        lines.extend(["GATEWAY=", &parsed.to_string(), "\n"]);
    }
    let servers = network
        .dns
        .iter()
        .map(|server| parse("network.dns", server));
    let servers: Vec<String> = servers
        .map(|server| server.map(|address| address.to_string()))
        .collect::<Result<_, _>>()?;
    lines.extend(["DNS=", &servers.join(" "), "\n"]);
    Ok(Some(lines))
}

/// The bits of an address that number the machine, for a prefix of this length.
fn host_bits(length: u32) -> u32 {
    u32::MAX.checked_shr(length).unwrap_or(0)
}

/// An Argon2id hash as `argon2 -e` prints it, of a cost that this box can pay.
fn check_hash(hash: &str) -> Result<(), Problem> {
    let fields: Vec<&str> = hash.split('$').collect();
    let cost = |text: &str| -> Option<(u32, u32, u32)> {
        let mut parts = text.split(',');
        let mut part = |name: &str| parts.next()?.strip_prefix(name)?.parse::<u32>().ok();
        Some((part("m=")?, part("t=")?, part("p=")?))
    };
    let base64 = |text: &&str| {
        text.len() >= 8
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b))
    };
    let fits = match fields.as_slice() {
        ["", "argon2id", "v=19", costs, salt, hash] => {
            base64(salt)
                && base64(hash)
                && cost(costs).is_some_and(|(memory, rounds, lanes)| {
                    (8..=MAX_HASH_MEMORY).contains(&memory)
                        && (1..=MAX_HASH_ROUNDS).contains(&rounds)
                        && (1..=MAX_HASH_ROUNDS).contains(&lanes)
                })
        }
        _ => false,
    };
    if fits {
        return Ok(());
    }
    Err(Problem::new(
        "this is no hash that can be used here",
        "an Argon2id hash of at most 64 MiB and 10 rounds, as `argon2 SALT -id -e` prints it",
    ))
}

fn make_folder_of(path: &Path) -> Result<(), FirstStartError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|source| FirstStartError::Write {
        path: folder.to_owned(),
        source,
    })
}

fn remove(path: &Path) -> Result<(), FirstStartError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(FirstStartError::Write {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn write(path: &Path, mode: u32, content: &str) -> Result<(), FirstStartError> {
    make_folder_of(path)?;
    durable::replace(path, content.as_bytes(), mode).map_err(|source| FirstStartError::Write {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$argon2id$v=19$m=4096,t=3,p=1$c29tZXNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaGhhc2g";

    /// What a file leads to, in a folder that stands for /data.
    fn use_file(data: &Path, text: &str) -> Result<bool, String> {
        let path = data.join("usbip-pi.toml");
        fs::write(&path, text).unwrap();
        configure(&path, data).map_err(|error| error.to_string())
    }

    fn read(data: &Path, name: &str) -> String {
        fs::read_to_string(data.join(name)).unwrap_or_default()
    }

    #[test]
    fn a_whole_file_is_used_once() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        let text = format!(
            "\u{feff}hostname = \"bench\"\r\n[network]\naddress = \"10.1.2.3/16\"\n\
             gateway = \"10.1.0.1\"\ndns = [\"10.1.0.1\", \"fd00::1\"]\n\
             [vm]\nhost = \"vm.lab\"\n[portal]\npassword_hash = \"{HASH}\"\n"
        );
        assert_eq!(use_file(data, &text), Ok(true));
        assert_eq!(read(data, "network/hostname"), "bench\n");
        assert_eq!(
            read(data, "network/static"),
            "ADDRESS=10.1.2.3/16\nGATEWAY=10.1.0.1\nDNS=10.1.0.1 fd00::1\n"
        );
        assert_eq!(read(data, "portal/password"), format!("{HASH}\n"));
        assert_eq!(read(data, "usbip/vm.conf"), "VM_HOST=vm.lab\nVM_USER=dev\n");

        // What was done to it afterwards stays.
        fs::write(data.join("network/hostname"), "other\n").unwrap();
        assert_eq!(use_file(data, &text), Ok(false));
        assert_eq!(read(data, "network/hostname"), "other\n");
        // A changed file counts.
        assert_eq!(use_file(data, "hostname = \"third\""), Ok(true));
        assert_eq!(read(data, "network/hostname"), "third\n");
        assert!(data.join("network/static").exists());
        let dhcp = "[network]\naddress = \"dhcp\"";
        for text in [dhcp, &format!("{dhcp}\n")] {
            assert_eq!(use_file(data, text), Ok(true));
            assert!(!data.join("network/static").exists());
        }
    }

    #[test]
    fn the_example_is_good_as_it_is_and_with_every_line_in_use() {
        let example = include_str!("../../../buildroot/board/common/usbip-pi.toml.example");
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(use_file(dir.path(), example), Ok(true));
        let lines = example.lines().map(|line| {
            let setting = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
            setting
                .unwrap_or(line)
                .replace("$argon2id$v=19$m=4096,t=3,p=1$...", HASH)
        });
        let all: String = lines.map(|line| line + "\n").collect();
        assert_eq!(use_file(dir.path(), &all), Ok(true), "{all}");
        assert_eq!(read(dir.path(), "network/hostname"), "usbip-pi\n");
    }

    #[test]
    fn a_wrong_file_changes_nothing_and_is_told_by_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let good = "hostname = \"bench\"\n";
        for (text, told) in [
            ("hostname = bench", "line 1"),
            (
                "hostname = \"a\"\nhostnam = \"b\"",
                "line 2: unknown field `hostnam`",
            ),
            (
                "[network]\ngateway = \"10.0.0.1\"",
                "missing field `address`",
            ),
            (
                "[network]\naddress = \"10.0.0.7\"",
                "network.address: \"10.0.0.7\" is no address",
            ),
            (
                "[network]\naddress = \"10.0.0.7/24\"\ngateway = \"x; reboot\"",
                "network.gateway",
            ),
            (
                "[network]\naddress = \"10.0.0.7/24\"\ngateway = \"10.0.1.1\"",
                "network.gateway: \"10.0.1.1\" is not on the network of 10.0.0.7/24",
            ),
            (
                "[network]\naddress = \"10.0.0.7/24\"\ngateway = \"fd00::1\"",
                "network.gateway",
            ),
            ("[network]\naddress = \"10.0.0.0/24\"", "network.address"),
            ("[network]\naddress = \"10.0.0.255/24\"", "network.address"),
            ("[network]\naddress = \"127.0.0.1/8\"", "network.address"),
            (
                "[network]\naddress = \"dhcp\"\ngateway = \"10.0.0.1\"",
                "network.address: DHCP brings its own",
            ),
            (
                "[network]\naddress = \"10.0.0.7/24\"\ndns = [\"\"]",
                "network.dns",
            ),
            ("[vm]\nhost = \"-oProxyCommand=x\"", "vm.host"),
            ("[vm]\nhost = \"vm\"\nuser = \"a b\"", "vm.user"),
            (
                "[portal]\npassword_hash = \"secret\"",
                "portal.password_hash",
            ),
            (
                "[portal]\npassword_hash = \"$argon2id$v=19$m=4194304,t=3,p=1$c29tZXNhbHQ$aGFzaGhhc2g\"",
                "at most 64 MiB",
            ),
        ] {
            let with_good = if text.starts_with("hostname") {
                String::new()
            } else {
                good.to_owned()
            };
            let error = use_file(dir.path(), &(with_good + text)).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
        for kept in ["network", "portal", "usbip", "first-start"] {
            assert!(!dir.path().join(kept).exists(), "{kept}");
        }
    }

    #[test]
    fn no_file_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!configure(&dir.path().join("none"), dir.path()).unwrap());
    }
}
