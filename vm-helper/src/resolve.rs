//! The Pi's addresses.

use std::{
    net::IpAddr,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{failure::Error, run};

/// How long a name may take; mDNS answers within a second or never.
const LIMIT: Duration = Duration::from_secs(4);

/// The addresses of an IP literal or a name.
///
/// Names are asked of the system's `getent`: the binary is static, and a static glibc can load name
/// service modules (files, DNS, mDNS) only of its own version, which is not the machine's.
pub fn addresses(host: &str) -> Result<Vec<IpAddr>, Error> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let mut getent = Command::new("getent");
    getent.args(["ahosts", host]).stdin(Stdio::null());
    let output = run::output(getent, LIMIT)?;
    let mut found: Vec<IpAddr> = Vec::new();
    for address in output
        .stdout
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().next()?.parse().ok())
    {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    if found.is_empty() {
        return Err(Error::Resolve {
            host: host.to_owned(),
            said: if output.timed_out {
                format!("no answer within {} s", LIMIT.as_secs())
            } else {
                "the name is unknown".into()
            },
        });
    }
    Ok(found)
}
