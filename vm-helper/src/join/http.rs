//! Asking the Pi: one request of HTTP/1.0, so that the answer ends with the connection.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use protocol::join::{MAX_MESSAGE, Refusal, Report};
use serde::de::DeserializeOwned;

use super::{Address, JoinError};
use crate::{failure::Error, resolve};

/// How long one address may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take: before it, the Pi asks this machine for its host keys.
const ANSWER: Duration = Duration::from_mins(1);

/// Ask, with a report by POST; the answer, and this machine's address on the way there.
pub(super) fn ask<T: DeserializeOwned>(
    address: &Address,
    below: &str,
    report: Option<&Report>,
) -> Result<(T, IpAddr), JoinError> {
    let authority = address.authority();
    let failed = |source| JoinError::Answer {
        authority: authority.clone(),
        source,
    };
    let mut stream = connect(address)?;
    let here = stream.local_addr().map_err(failed)?.ip().to_canonical();
    let body = report
        .map(serde_json::to_string)
        .transpose()
        .map_err(|error| failed(error.into()))?;
    let path = format!("{}{below}", address.path);
    let head = match &body {
        // The portal takes changes only from what knows its own origin.
        Some(body) => format!(
            "POST {path} HTTP/1.0\r\nHost: {authority}\r\nOrigin: http://{authority}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ),
        None => format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n"),
    };
    let text = exchange(&mut stream, &(head + &body.unwrap_or_default())).map_err(failed)?;
    let (status, body) = parse(&text).map_err(failed)?;
    if status == 200 {
        let answer = serde_json::from_str(body).map_err(|error| failed(error.into()))?;
        return Ok((answer, here));
    }
    Err(match serde_json::from_str::<Refusal>(body) {
        Ok(refusal) => JoinError::Refused(refusal),
        Err(_) => failed(io::Error::other(format!("it answers {status}"))),
    })
}

fn connect(address: &Address) -> Result<TcpStream, JoinError> {
    let mut last = None;
    for ip in resolve::addresses(&address.host)? {
        match TcpStream::connect_timeout(&SocketAddr::new(ip, address.port), CONNECT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    let error = Error::Connect {
        host: address.host.clone(),
        port: address.port,
        source: last.unwrap_or_else(|| io::ErrorKind::NotFound.into()),
    };
    Err(error.into())
}

fn exchange(stream: &mut TcpStream, request: &str) -> io::Result<String> {
    let end = Instant::now() + ANSWER;
    stream.set_write_timeout(Some(ANSWER))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What a read with a time limit says of it (socket(7)).
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
        if answer.len() > MAX_MESSAGE {
            return Err(io::Error::other("it is too long"));
        }
    }
    String::from_utf8(answer).map_err(io::Error::other)
}

/// Status code and body.
fn parse(answer: &str) -> io::Result<(u16, &str)> {
    let parts = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let (version, rest) = head.split_once(' ')?;
        let status = rest.get(..3)?.parse().ok()?;
        version.starts_with("HTTP/1.").then_some((status, body))
    });
    parts.ok_or_else(|| io::Error::other("it is not HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_or_refused() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-type: x\r\n\r\n{}";
        assert_eq!(parse(ok).unwrap(), (200, "{}"));
        for text in [
            "",
            "HTTP/1.1 200 OK",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 xx\r\n\r\n",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
