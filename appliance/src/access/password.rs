//! The rules for a password, its hash, and the file that the hash lies in.

use std::{fs, io, path::Path};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{
        Error as HashError, PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash,
    },
};

use super::{error::AccessError, secret::random};
use crate::system::durable;

/// Shortest password, in characters.
pub(super) const LEAST_CHARACTERS: usize = 10;
/// Longest password, in bytes; so that a long text is not taken for one by mistake.
pub(super) const MOST_BYTES: usize = 200;

/// Most memory that a hash may take that was made elsewhere, in KiB.
const MOST_MEMORY_KIB: u32 = 128 * 1024;

/// The largest password file, in bytes; a PHC string has about a hundred.
const LARGEST_FILE: u64 = 1024;

/// What hashing a password costs: Argon2id with one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Default for Cost {
    /// The first of the equally strong sets that OWASP's Password Storage Cheat Sheet recommends.
    ///
    /// It is also the one that is gone again afterwards: glibc gives blocks of more than 32 MiB back
    /// to the kernel at once (mallopt(3), `M_MMAP_THRESHOLD`), and keeps smaller ones.
    fn default() -> Self {
        Self {
            memory_kib: 47_104,
            passes: 1,
        }
    }
}

/// How the password stands.
#[derive(Debug, Clone)]
pub(super) enum Password {
    /// There is none.
    None,
    /// Its hash, a PHC string.
    Set(String),
    /// There is a file, but none that can be used; a sentence that says why. Nobody can sign in, and
    /// nobody can claim the portal either.
    Broken(String),
}

impl Password {
    /// Read the file. Blocks.
    pub(super) fn read(path: &Path) -> Self {
        let broken = |why: &dyn std::fmt::Display| {
            let sentence = format!(
                "The password's file {} cannot be used ({why}), so nobody can sign in. Put an empty file \
                 named reset-password on the boot partition of the SD card and restart the Pi; then \
                 choose a new password.",
                path.display()
            );
            tracing::error!("{sentence}");
            Self::Broken(sentence)
        };
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A link to nowhere is no missing password.
                return match fs::symlink_metadata(path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Self::None,
                    _ => broken(&error),
                };
            }
            Err(error) => return broken(&error),
            Ok(meta) if !meta.is_file() => return broken(&"it is no file"),
            Ok(meta) if meta.len() > LARGEST_FILE => return broken(&"it is too large"),
            Ok(_) => {}
        }
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return broken(&error),
        };
        let hash = text.trim();
        match PasswordHash::new(hash) {
            Ok(parsed) if parsed.algorithm.as_str() != "argon2id" || parsed.hash.is_none() => {
                broken(&"it holds no argon2id hash")
            }
            Ok(parsed) => match Params::try_from(&parsed) {
                Ok(params) if params.m_cost() <= MOST_MEMORY_KIB => Self::Set(hash.to_owned()),
                Ok(_) => broken(&"its hash takes more memory than the Pi can spare"),
                Err(error) => broken(&error),
            },
            Err(error) => broken(&error),
        }
    }
}

/// Whether a password may be chosen.
pub(super) fn check(password: &str, again: &str) -> Result<(), AccessError> {
    let characters = password.chars().count();
    if characters < LEAST_CHARACTERS {
        Err(AccessError::TooShort(characters))
    } else if password.len() > MOST_BYTES {
        Err(AccessError::TooLong)
    } else if password != again {
        Err(AccessError::Differ)
    } else {
        Ok(())
    }
}

/// Hash a password and write the hash; returns it. Blocks.
pub(super) fn write(path: &Path, password: &str, cost: Cost) -> Result<Password, AccessError> {
    let hash = hash(password, cost)?;
    let write = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        durable::replace(path, format!("{hash}\n").as_bytes(), 0o600)
    };
    match write() {
        Ok(()) => Ok(Password::Set(hash)),
        Err(source) => Err(AccessError::Write {
            path: path.to_owned(),
            source,
        }),
    }
}

fn hash(password: &str, cost: Cost) -> Result<String, AccessError> {
    let failed = |error: &dyn std::fmt::Display| AccessError::Hash(error.to_string());
    let salt = random::<16>().map_err(AccessError::Random)?;
    let params = Params::new(cost.memory_kib, cost.passes, 1, None).map_err(|e| failed(&e))?;
    let hash: PasswordHash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_with_salt(password.as_bytes(), &salt)
        .map_err(|error| failed(&error))?;
    Ok(hash.to_string())
}

/// Whether this is the password of that hash, at the cost that the hash names. Blocks.
pub(super) fn verify(password: &str, hash: &str) -> Result<(), AccessError> {
    let verified = Argon2::default().verify_password(password.as_bytes(), hash);
    verified.map_err(|error| match error {
        HashError::PasswordInvalid => AccessError::Wrong,
        error => AccessError::Hash(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const CHEAP: Cost = Cost {
        memory_kib: 8,
        passes: 1,
    };

    #[test]
    fn the_rules() {
        assert!(check("0123456789", "0123456789").is_ok());
        assert!(check("éééééééééé", "éééééééééé").is_ok());
        let short = check("012345678", "012345678").unwrap_err().to_string();
        assert!(short.contains("9 of at least 10 characters"), "{short}");
        let long = "x".repeat(201);
        assert!(matches!(check(&long, &long), Err(AccessError::TooLong)));
        let differ = check("0123456789", "0123456780");
        assert!(matches!(differ, Err(AccessError::Differ)));
    }

    #[test]
    fn what_was_written_is_read_and_verified() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("portal/password");
        assert!(matches!(Password::read(&path), Password::None));
        write(&path, "correct horse", CHEAP).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!fs::read_to_string(&path).unwrap().contains("horse"));
        let Password::Set(hash) = Password::read(&path) else {
            panic!("not read");
        };
        assert!(verify("correct horse", &hash).is_ok());
        assert!(matches!(
            verify("correct mouse", &hash),
            Err(AccessError::Wrong)
        ));
    }

    #[test]
    fn the_default_cost_works() {
        let hash = hash("correct horse", Cost::default()).unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=47104,t=1,p=1$"),
            "{hash}"
        );
        assert!(verify("correct horse", &hash).is_ok());
    }

    #[test]
    fn a_broken_file_is_not_a_missing_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let is_broken = || matches!(Password::read(&path), Password::Broken(text) if text.contains("reset-password"));
        for content in [
            "",
            "secret",
            "$argon2id$",
            "$argon2d$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2g",
            "\u{0}",
            "$argon2id$v=19$m=4000000,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
        ] {
            fs::write(&path, content).unwrap();
            assert!(is_broken(), "{content:?}");
        }
        fs::write(&path, [0xff; 40]).unwrap();
        assert!(is_broken());
        fs::write(&path, "x".repeat(5000)).unwrap();
        assert!(is_broken());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(is_broken());
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("/nonexistent/x", &path).unwrap();
        assert!(is_broken());
    }
}
