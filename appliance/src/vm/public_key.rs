//! A public key as OpenSSH writes it: `TYPE BASE64 [COMMENT]`.

use std::fmt;

use base64ct::{Base64, Base64Unpadded, Encoding};
use sha2::{Digest, Sha256};

/// The longest key that is read, in bytes of its line: RSA with 16384 bits has about 2800.
const MAX_LENGTH: usize = 8192;

/// A text is no public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("failed to read a public key: expected one line such as \"ssh-ed25519 AAAA...\"")]
pub struct PublicKeyError;

/// A public key, without its comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: String,
    blob: Vec<u8>,
}

impl PublicKey {
    /// Reads the first two words of a line; a comment after them is dropped.
    pub fn parse(line: &str) -> Result<Self, PublicKeyError> {
        let mut words = line.split_ascii_whitespace();
        let (Some(algorithm), Some(text)) = (words.next(), words.next()) else {
            return Err(PublicKeyError);
        };
        if line.len() > MAX_LENGTH {
            return Err(PublicKeyError);
        }
        let blob = Base64::decode_vec(text).map_err(|_| PublicKeyError)?;
        // The blob begins with the algorithm again, after its length (RFC 4253, 6.6), and has more.
        let named = blob.split_first_chunk::<4>().is_some_and(|(length, rest)| {
            u32::from_be_bytes(*length) as usize == algorithm.len()
                && rest.len() > algorithm.len()
                && rest.starts_with(algorithm.as_bytes())
        });
        if !named {
            return Err(PublicKeyError);
        }
        Ok(Self {
            algorithm: algorithm.to_owned(),
            blob,
        })
    }

    /// The algorithm's name, such as `ssh-ed25519`.
    #[must_use]
    pub fn algorithm(&self) -> &str {
        &self.algorithm
    }

    /// The fingerprint as ssh shows it: `SHA256:` and base64 without padding.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let hash = Sha256::digest(&self.blob);
        format!("SHA256:{}", Base64Unpadded::encode_string(&hash))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blob = Base64::encode_string(&self.blob);
        write!(f, "{} {blob}", self.algorithm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_and_shows_what_openssh_does() {
        // Made by ssh-keygen; the fingerprint is what `ssh-keygen -lf` prints for it.
        let line =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG7bN7fDcDx9zHvt6hSQ/6REJZ4/1oYeAEBWZs6kb/8Y";
        let key = PublicKey::parse(&format!("{line} root@vm\n")).unwrap();
        assert_eq!(key.to_string(), line);
        assert_eq!(key.algorithm(), "ssh-ed25519");
        assert_eq!(
            key.fingerprint(),
            "SHA256:H/oYanQDAXC6cEv4FA/QSDuAwkxUA4d1dOE6yYZSnU8"
        );
    }

    #[test]
    fn nonsense_is_no_key() {
        for line in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            "ssh-ed25519 !!!!",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIA==",
        ] {
            assert_eq!(PublicKey::parse(line), Err(PublicKeyError), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(ssh-ed25519 )?[A-Za-z0-9+/= ]{0,80}") {
            let _ = PublicKey::parse(&text);
        }
    }
}
