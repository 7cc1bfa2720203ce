//! `vm-helper join URL [--user NAME] [--replace]`

use std::ffi::OsString;

use super::{Address, JoinError, Order, Pairing, join};
use crate::root::Root;

/// Exit code when nothing was paired.
const FAILED: u8 = 1;
/// Exit code when the command line is wrong.
const MISUSED: u8 = 2;
/// Where an SSH server listens.
const SSH_PORT: u16 = 22;

/// Run with what follows `join`; the value is the exit code.
pub fn run(args: impl Iterator<Item = OsString>) -> u8 {
    let order = match parse(args) {
        Ok(order) => order,
        Err(sentence) => {
            eprintln!("{sentence}\nusage: vm-helper join URL [--user NAME] [--replace]");
            return MISUSED;
        }
    };
    if !rustix::process::geteuid().is_root() {
        eprintln!("pairing needs root: sudo vm-helper join {}", order.address);
        return FAILED;
    }
    match join(&Root::system(), &order) {
        Ok(pairing) => {
            print!("{}", told(&order.address, &pairing));
            0
        }
        Err(error) => {
            tell(&error);
            FAILED
        }
    }
}

fn parse(args: impl Iterator<Item = OsString>) -> Result<Order, String> {
    let mut parser = lexopt::Parser::from_args(args);
    let (mut address, mut user, mut replace) = (None, None, false);
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            lexopt::Arg::Long("replace") => replace = true,
            lexopt::Arg::Long("user") => {
                let name = parser.value().map_err(|error| error.to_string())?;
                user = Some(name.to_string_lossy().into_owned());
            }
            lexopt::Arg::Value(word) if address.is_none() => {
                let parsed = word.to_string_lossy().parse::<Address>();
                address = Some(parsed.map_err(|error| error.to_string())?);
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(Order {
        address: address.ok_or("the address is missing")?,
        user,
        replace,
        ssh_port: SSH_PORT,
    })
}

/// What a person compares with the portal.
fn told(address: &Address, pairing: &Pairing) -> String {
    let Pairing { user, joined, key } = pairing;
    let key = key.as_ref().unwrap_or(&joined.key);
    let mut lines = vec![
        format!(
            "Paired with the Pi at {}. It logs in as {user}@{} and attaches every serial device.",
            address.host, joined.host
        ),
        "Compare with what the portal shows:".into(),
        format!("  the Pi's key, let in here:           {key}"),
    ];
    for host_key in &joined.host_keys {
        lines.push(format!("  this machine's, as the Pi keeps it:  {host_key}"));
    }
    if *key != joined.key {
        lines.push(format!(
            "WARNING: the Pi says that its key is {}. Somebody may have changed it on its way.",
            joined.key
        ));
    }
    lines.iter().map(|line| plain(line) + "\n").collect()
}

fn tell(error: &JoinError) {
    eprintln!("Not paired: {}.", plain(&error.sentence()));
    if let Some(remedy) = error.remedy() {
        eprintln!("  remedy: {}", plain(&remedy));
    }
}

/// What came over the network, without what would steer the terminal.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}
