//! Random tokens, of which only digests are kept.

use std::{
    fmt::{self, Write as _},
    io,
};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest as _, Sha256};

/// SHA-256 of a token. The tokens have 256 random bits, so that one round is enough, and looking a
/// digest up tells nothing about the token by the time that it takes.
pub type Digest = [u8; 32];

/// A token that lets its bearer in.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// 256 random bits in base64url, 43 characters.
    pub fn random() -> Result<Self, io::Error> {
        Ok(Self(Base64UrlUnpadded::encode_string(&random::<32>()?)))
    }

    /// What its bearer shows.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest(&self.0)
    }
}

/// Keeps it out of logs.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What is kept of a token that somebody shows.
#[must_use]
pub fn digest(token: &str) -> Digest {
    Sha256::digest(token.as_bytes()).into()
}

/// A digest in hex, 64 characters.
#[must_use]
pub fn hex(key: &Digest) -> String {
    key.iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The digest that is written like this, if any.
#[must_use]
pub fn from_hex(text: &str) -> Option<Digest> {
    let mut key = Digest::default();
    if text.len() != 2 * key.len() || !text.is_ascii() {
        return None;
    }
    for (n, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()?;
    }
    Some(key)
}

/// A token for a purpose that only the bearer of another one can show.
#[must_use]
pub fn derived(purpose: &str, token: &str) -> String {
    let digest = Sha256::new()
        .chain_update(purpose.as_bytes())
        .chain_update([0])
        .chain_update(token.as_bytes())
        .finalize();
    Base64UrlUnpadded::encode_string(&digest)
}

/// Random bytes from the kernel. Waits, early in a boot, until it has some.
pub fn random<const N: usize>() -> Result<[u8; N], io::Error> {
    const { assert!(N <= 256, "the kernel may give fewer at once") };
    let mut bytes = [0; N];
    let filled = getrandom(&mut bytes[..], GetRandomFlags::empty())?;
    if filled == N {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_and_differ_and_stay_out_of_logs() {
        let (a, b) = (Secret::random().unwrap(), Secret::random().unwrap());
        assert_eq!(a.expose().len(), 43);
        assert_ne!(a, b);
        assert_ne!(a.digest(), b.digest());
        assert_eq!(a.digest(), digest(a.expose()));
        assert_eq!(format!("{a:?}"), "Secret(…)");
        assert_eq!(from_hex(&hex(&a.digest())), Some(a.digest()));
        for wrong in ["", "00", &"x".repeat(64), &"é".repeat(32)] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
        assert_ne!(derived("x", a.expose()), derived("y", a.expose()));
    }
}
