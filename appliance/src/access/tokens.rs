//! Tokens of programs.

use std::collections::BTreeMap;

use super::{
    error::AccessError,
    kept::{Kept, KeptToken},
    secret::Digest,
};

/// Tokens at once.
const MOST: usize = 32;
/// Longest name, in characters.
const LONGEST_NAME: usize = 60;
/// How often a use is stored: a card wears with each write.
const STORED_EACH_MS: i64 = 60 * 60 * 1000;

/// A token of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What is kept of it.
    pub key: Digest,
    /// What a person calls it.
    pub name: String,
    /// When it was made, in milliseconds since 1970; none where the clock was not set.
    pub created_ms: Option<i64>,
    /// When it was last used, likewise; none for never.
    pub used_ms: Option<i64>,
}

/// All tokens.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    known: BTreeMap<Digest, Known>,
}

#[derive(Debug)]
struct Known {
    token: KeptToken,
    stored_ms: Option<i64>,
}

impl Tokens {
    pub(super) fn recalled(kept: impl IntoIterator<Item = (Digest, KeptToken)>) -> Self {
        let known = kept.into_iter().map(|(key, token)| {
            let stored_ms = token.used_ms;
            (key, Known { token, stored_ms })
        });
        Self {
            known: known.collect(),
        }
    }

    /// Whether a token can have this name; the name as it is kept.
    pub(super) fn check(&self, name: &str) -> Result<String, AccessError> {
        let name = name.trim();
        let length = name.chars().count();
        if length == 0 || length > LONGEST_NAME {
            return Err(AccessError::Name(LONGEST_NAME));
        }
        if self.known.values().any(|known| known.token.name == name) {
            return Err(AccessError::SameName);
        }
        if self.known.len() >= MOST {
            return Err(AccessError::TooManyTokens(MOST));
        }
        Ok(name.to_owned())
    }

    pub(super) fn add(&mut self, key: Digest, name: String, created_ms: Option<i64>) -> Kept {
        let token = KeptToken {
            name,
            created_ms,
            used_ms: None,
        };
        let kept = Kept::Token(key, Some(token.clone()));
        let stored_ms = None;
        self.known.insert(key, Known { token, stored_ms });
        kept
    }

    /// Whether there is such a token; that counts as a use of it.
    pub(super) fn accept(&mut self, key: &Digest, now_ms: Option<i64>) -> (bool, Option<Kept>) {
        let Some(known) = self.known.get_mut(key) else {
            return (false, None);
        };
        let Some(now) = now_ms else {
            return (true, None);
        };
        known.token.used_ms = Some(now);
        let is_stored = known
            .stored_ms
            .is_some_and(|stored| (now - stored).abs() < STORED_EACH_MS);
        if is_stored {
            return (true, None);
        }
        known.stored_ms = Some(now);
        (true, Some(Kept::Token(*key, Some(known.token.clone()))))
    }

    /// Remove a token; its name, if there was one.
    pub(super) fn remove(&mut self, key: &Digest) -> Option<(String, Kept)> {
        let known = self.known.remove(key)?;
        Some((known.token.name, Kept::Token(*key, None)))
    }

    /// All of them, by name.
    pub(super) fn list(&self) -> Vec<Token> {
        let tokens = self.known.iter().map(|(key, known)| Token {
            key: *key,
            name: known.token.name.clone(),
            created_ms: known.token.created_ms,
            used_ms: known.token.used_ms,
        });
        let mut tokens: Vec<_> = tokens.collect();
        tokens.sort_by(|a, b| a.name.cmp(&b.name));
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let mut tokens = Tokens::default();
        assert_eq!(tokens.check(" Grafana ").unwrap(), "Grafana");
        for wrong in ["", "  ", &"x".repeat(61)] {
            assert!(matches!(tokens.check(wrong), Err(AccessError::Name(_))));
        }
        tokens.add([0; 32], "Grafana".into(), None);
        assert!(matches!(
            tokens.check("Grafana"),
            Err(AccessError::SameName)
        ));
        for n in 1..MOST {
            tokens.add([u8::try_from(n).unwrap(); 32], n.to_string(), None);
        }
        assert!(matches!(
            tokens.check("x"),
            Err(AccessError::TooManyTokens(_))
        ));
    }

    #[test]
    fn uses_are_stored_now_and_then() {
        let mut tokens = Tokens::default();
        tokens.add([1; 32], "x".into(), None);
        assert_eq!(tokens.accept(&[2; 32], Some(5)), (false, None));
        assert_eq!(tokens.accept(&[1; 32], None), (true, None));
        assert!(tokens.accept(&[1; 32], Some(5)).1.is_some());
        assert_eq!(tokens.accept(&[1; 32], Some(6)), (true, None));
        assert_eq!(tokens.list()[0].used_ms, Some(6));
        assert!(
            tokens
                .accept(&[1; 32], Some(STORED_EACH_MS + 6))
                .1
                .is_some()
        );
        let (name, kept) = tokens.remove(&[1; 32]).unwrap();
        assert_eq!((name.as_str(), kept), ("x", Kept::Token([1; 32], None)));
        assert_eq!(tokens.accept(&[1; 32], Some(7)), (false, None));
    }
}
