//! What the Pi's portal says, asked as a browser on this host does.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::{Bed, Error};

/// How long the portal may take to answer.
const ANSWER: Duration = Duration::from_secs(20);
/// More than any page has.
const LIMIT: u64 = 8 << 20;

impl Bed {
    /// A page of the portal: status code and body. HTTP/1.0, so that the body comes in one piece.
    pub fn page(&self, path: &str) -> Result<(u16, String), Error> {
        let ask = || {
            let mut socket = TcpStream::connect(("127.0.0.1", self.pair.portal_port))?;
            socket.set_read_timeout(Some(ANSWER))?;
            socket.set_write_timeout(Some(ANSWER))?;
            write!(socket, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
            let mut answer = String::new();
            socket.take(LIMIT).read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(|source: io::Error| Error::Portal {
            path: path.to_owned(),
            source,
        })?;
        let parts = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
            let code = head.split(' ').nth(1)?.parse().ok()?;
            Some((code, body.to_owned()))
        });
        parts.ok_or(Error::Answer {
            what: "the portal",
            answer,
        })
    }

    /// How the Pi sees everything: `/api/v1/status`.
    pub fn view(&self) -> Result<Value, Error> {
        let (code, body) = self.page("/api/v1/status")?;
        serde_json::from_str(&body)
            .ok()
            .filter(|_| code == 200)
            .ok_or(Error::Answer {
                what: "the portal's status",
                answer: body,
            })
    }

    /// A device as the Pi sees it, by its busid.
    pub fn device_view(&self, busid: &str) -> Result<Option<Value>, Error> {
        let view = self.view()?;
        let devices = view["devices"].as_array();
        Ok(devices.and_then(|devices| devices.iter().find(|one| one["busid"] == busid).cloned()))
    }
}
