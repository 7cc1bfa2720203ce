//! What the Pi's portal says, asked as a browser on this host does: signed in, after claiming the Pi where it is new.

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::net::TcpStream;
use std::sync::PoisonError;
use std::time::Duration;

use serde_json::Value;

use super::{Bed, Error};

/// The portal's password in the testbed.
pub const PASSWORD: &str = "testbed password";

/// How long the portal may take to answer.
const ANSWER: Duration = Duration::from_secs(20);
/// More than any page has.
const LIMIT: u64 = 8 << 20;

/// What the portal answered.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Whether it asks for a session.
    fn is_to_a_stranger(&self) -> bool {
        let leads_in = |to: &str| to.starts_with("/claim") || to.starts_with("/sign-in");
        self.code == 401 || self.header("location").is_some_and(leads_in)
    }
}

impl Bed {
    /// A page of the portal: status code and body.
    pub fn page(&self, path: &str) -> Result<(u16, String), Error> {
        let answer = self.signed_in(|| self.ask("GET", path, ""))?;
        Ok((answer.code, answer.body))
    }

    /// Sends a form as its page would. The values need no encoding.
    pub fn submit(&self, path: &str, fields: &[(&str, &str)]) -> Result<Answer, Error> {
        self.signed_in(|| {
            let page = self.ask("GET", "/", "")?;
            let token = page
                .body
                .split_once("name=\"form_token\" value=\"")
                .and_then(|(_, rest)| rest.split('"').next());
            let Some(token) = token else {
                return Ok(page);
            };
            let fields = fields.iter().copied().chain([("form_token", token)]);
            self.ask("POST", path, &encoded(fields))
        })
    }

    /// Asks; where the answer wants a session, gets one and asks again.
    fn signed_in(&self, ask: impl Fn() -> Result<Answer, Error>) -> Result<Answer, Error> {
        let answer = ask()?;
        if !answer.is_to_a_stranger() {
            return Ok(answer);
        }
        let claim = [("password", PASSWORD), ("again", PASSWORD)];
        let mut entered = self.ask("POST", "/claim", &encoded(claim))?;
        if entered.header("set-cookie").is_none() {
            entered = self.ask("POST", "/sign-in", &encoded([("password", PASSWORD)]))?;
        }
        let cookie = entered
            .header("set-cookie")
            .and_then(|cookie| cookie.split(';').next());
        let Some(cookie) = cookie else {
            return Err(Error::Answer {
                what: "the portal's sign-in",
                answer: format!("{}\n\n{}", entered.head, entered.body),
            });
        };
        *self.cookie.lock().unwrap_or_else(PoisonError::into_inner) = Some(cookie.to_owned());
        ask()
    }

    /// One request. HTTP/1.0, so that the body comes in one piece.
    fn ask(&self, method: &str, path: &str, form: &str) -> Result<Answer, Error> {
        let cookie = self
            .cookie
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .unwrap_or_default();
        let ask = || {
            let mut socket = TcpStream::connect(("127.0.0.1", self.pair.portal_port))?;
            socket.set_read_timeout(Some(ANSWER))?;
            socket.set_write_timeout(Some(ANSWER))?;
            let length = form.len();
            write!(
                socket,
                "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n\
                 Cookie: {cookie}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
                 Content-Length: {length}\r\n\r\n{form}"
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
            Some(Answer {
                code: head.split(' ').nth(1)?.parse().ok()?,
                head: head.to_owned(),
                body: body.to_owned(),
            })
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

    /// What happened after the event with this number, and the newest one's number.
    pub fn events(&self, after: i64) -> Result<(Vec<Value>, i64), Error> {
        let (_, body) = self.page(&format!("/api/v1/events?after={after}&limit=1000"))?;
        let answer: Option<Value> = serde_json::from_str(&body).ok();
        let parts = answer.and_then(|answer| {
            let events = answer["events"].as_array()?.clone();
            Some((events, answer["newest"].as_i64()?))
        });
        parts.ok_or(Error::Answer {
            what: "what happened",
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

/// As a form's body.
fn encoded<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut body = String::new();
    for (name, value) in fields {
        let _ = write!(body, "{}{name}=", if body.is_empty() { "" } else { "&" });
        for byte in value.bytes() {
            // Writing to a String cannot fail.
            let _ = match byte {
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'.' => {
                    write!(body, "{}", char::from(byte))
                }
                _ => write!(body, "%{byte:02X}"),
            };
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_encoded_as_browsers_do() {
        assert_eq!(
            encoded([("a", "x y&z=ä"), ("b", "")]),
            "a=x%20y%26z%3D%C3%A4&b="
        );
    }
}
