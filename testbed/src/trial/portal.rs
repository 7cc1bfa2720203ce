//! What the Pi's portal says, asked as a browser on this host does.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::PoisonError;
use std::time::Duration;

use serde_json::Value;

use super::{Bed, Error};

/// How long the portal may take to answer.
const ANSWER: Duration = Duration::from_secs(20);
/// The password that the portal is claimed with.
const PASSWORD: &str = "testbed-password";
/// More than any page has.
const LIMIT: u64 = 8 << 20;

impl Bed {
    /// A page of the portal, for somebody who is signed in: status code and body. Claims the portal, or
    /// signs in, where that is needed.
    pub fn page(&self, path: &str) -> Result<(u16, String), Error> {
        let mut cookie = self.cookie.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cookie) = &*cookie {
            let (code, _, body) = self.ask("GET", path, &format!("Cookie: {cookie}\r\n"), "")?;
            if code != 401 && code != 303 {
                return Ok((code, body));
            }
        }
        let fresh = self.sign_in()?;
        let (code, _, body) = self.ask("GET", path, &format!("Cookie: {fresh}\r\n"), "")?;
        *cookie = Some(fresh);
        Ok((code, body))
    }

    /// A new session: its cookie.
    fn sign_in(&self) -> Result<String, Error> {
        let form = "Content-Type: application/x-www-form-urlencoded\r\n";
        let mut last = String::new();
        for (path, body) in [
            ("/claim", format!("password={PASSWORD}&again={PASSWORD}")),
            ("/sign-in", format!("password={PASSWORD}")),
        ] {
            let (_, head, body) = self.ask("POST", path, form, &body)?;
            let cookie = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                let cookie = value.split(';').next()?;
                name.eq_ignore_ascii_case("set-cookie")
                    .then(|| cookie.to_owned())
            });
            if let Some(cookie) = cookie {
                return Ok(cookie);
            }
            last = format!("{head}\r\n\r\n{body}");
        }
        Err(Error::Answer {
            what: "the portal's sign-in",
            answer: last,
        })
    }

    /// What the portal answers: status code, head and body. HTTP/1.0, so that the body comes in one piece.
    fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> Result<(u16, String, String), Error> {
        let ask = || {
            let mut socket = TcpStream::connect(("127.0.0.1", self.pair.portal_port))?;
            socket.set_read_timeout(Some(ANSWER))?;
            socket.set_write_timeout(Some(ANSWER))?;
            let length = body.len();
            write!(
                socket,
                "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n{headers}\
                 Content-Length: {length}\r\n\r\n{body}"
            )?;
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
            Some((code, head.to_owned(), body.to_owned()))
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
