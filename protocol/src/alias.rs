//! The name that a person gave a device.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest alias, in bytes: it is to be typed, and read on a phone.
pub const MAX_ALIAS: usize = 32;

/// A name that a person gave a device, and of its link below `/dev/usb-pi` on the VM.
///
/// Letters and digits of ASCII, `-`, `_` and `.`, the first one a letter or digit: always safe as a
/// file name and as a word in a command.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Alias(String);

/// Why a text is no alias. The text says what would be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    /// Nothing.
    #[error("a name needs at least one letter or digit")]
    Empty,
    /// Too long.
    #[error("a name has at most {MAX_ALIAS} characters; this one has {0}")]
    TooLong(usize),
    /// A character that it must not have.
    #[error("{0:?} cannot be in a name: use the letters a to z, digits, \"-\", \"_\" and \".\"")]
    Character(char),
    /// A first character that it must not begin with.
    #[error("a name begins with a letter or digit, not with {0:?}")]
    Begins(char),
}

impl Alias {
    /// The alias as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The link's name for the tty of this number, of a device's ttys counted from 0: the alias
    /// itself for the first, `ALIAS-1` for the second.
    #[must_use]
    pub fn link(&self, tty: usize) -> String {
        if tty == 0 {
            self.0.clone()
        } else {
            format!("{}-{tty}", self.0)
        }
    }

    /// Whether the links of two devices with these aliases could have the same name, or names that
    /// differ in upper and lower case alone, which people would mistake for each other.
    #[must_use]
    pub fn clashes_with(&self, other: &Self) -> bool {
        let (a, b) = (self.0.to_ascii_lowercase(), other.0.to_ascii_lowercase());
        let numbered = |name: &str, of: &str| {
            name.strip_prefix(of)
                .and_then(|rest| rest.strip_prefix('-'))
                .is_some_and(|number| number.parse::<u8>().is_ok())
        };
        a == b || numbered(&a, &b) || numbered(&b, &a)
    }
}

impl FromStr for Alias {
    type Err = AliasError;

    fn from_str(text: &str) -> Result<Self, AliasError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let first = text.chars().next().ok_or(AliasError::Empty)?;
        if let Some(c) = text.chars().find(|c| !allowed(*c)) {
            return Err(AliasError::Character(c));
        }
        if !first.is_ascii_alphanumeric() {
            return Err(AliasError::Begins(first));
        }
        if text.len() > MAX_ALIAS {
            return Err(AliasError::TooLong(text.len()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Alias {
    type Error = AliasError;

    fn try_from(text: String) -> Result<Self, AliasError> {
        text.parse()
    }
}

impl From<Alias> for String {
    fn from(alias: Alias) -> Self {
        alias.0
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn alias(text: &str) -> Alias {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_refused_is_told_what_to_do() {
        for (text, expected) in [
            ("", "at least one"),
            ("my board", "' ' cannot be in a name"),
            ("../tty", "'/' cannot be in a name"),
            ("..", "begins with a letter or digit"),
            ("-rf", "begins with a letter or digit"),
            ("bräd", "'ä' cannot be in a name"),
            (&"x".repeat(33), "at most 32 characters; this one has 33"),
        ] {
            let error = text.parse::<Alias>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn the_second_port_of_one_device_is_not_another_device() {
        for (a, b, clash) in [
            ("board", "board", true),
            ("board", "Board", true),
            ("board", "board-1", true),
            ("BOARD-12", "board", true),
            ("board", "board-x", false),
            ("board", "board1", false),
            ("board-1", "board-2", false),
        ] {
            assert_eq!(alias(a).clashes_with(&alias(b)), clash, "{a} {b}");
            assert_eq!(alias(b).clashes_with(&alias(a)), clash, "{b} {a}");
        }
        assert_eq!(alias("board").link(0), "board");
        assert_eq!(alias("board").link(1), "board-1");
    }

    proptest! {
        #[test]
        fn an_alias_is_one_word_and_one_file_name(text in ".{0,40}") {
            if let Ok(alias) = text.parse::<Alias>() {
                prop_assert_eq!(alias.to_string(), text.clone());
                prop_assert!(!text.contains(['/', ' ', ',', '\0']) && !text.starts_with(['.', '-']));
            }
        }
    }
}
