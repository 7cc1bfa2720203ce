//! What people decided about devices, whether they are plugged in or not: names, rules, and which
//! are held back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use protocol::Alias;
use serde::{Deserialize, Serialize};

use super::identity;
use crate::usb::{UsbDevice, Verdict};

/// So many names, rules and boards that are held back are kept; more than a person can oversee.
pub const MOST_KEPT: usize = 256;

/// Which devices a name, a rule or a hold is about.
///
/// Unlike [`super::Identity`], a serial number or port stands here without the product: a board that
/// comes back under another product id while it is being flashed is the same board to its owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scope {
    /// The one with this serial number, in upper case and without separators: an ESP32-S3 writes
    /// its own as `34:85:18:…` in the boot ROM and as `348518…` in a program.
    Serial(String),
    /// Whatever is in this physical port ([`UsbDevice::port_path`]).
    Port(String),
    /// All of this vendor and product.
    Product(u16, u16),
}

/// Why a text is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no device: expected \"serial NUMBER\", \"port PATH\" or \"product 10c4:ea60\""
)]
pub struct ScopeError(String);

impl Scope {
    /// By its serial number; none where that is missing or a common filler.
    #[must_use]
    pub fn serial(facts: &UsbDevice) -> Option<Self> {
        Self::of_serial(identity::usable_serial(facts)?)
    }

    fn of_serial(serial: &str) -> Option<Self> {
        let plain: String = serial
            .chars()
            .filter(|c| !matches!(c, ':' | '-' | '_' | '.' | ' '))
            .flat_map(char::to_uppercase)
            .collect();
        (!plain.is_empty()).then_some(Self::Serial(plain))
    }

    /// By its port.
    #[must_use]
    pub fn port(facts: &UsbDevice) -> Self {
        Self::Port(facts.port_path.clone())
    }

    /// By what it is.
    #[must_use]
    pub fn product(facts: &UsbDevice) -> Self {
        Self::Product(facts.vendor, facts.product)
    }

    /// What a name or a hold is kept by: the serial number or, where there is none, the port.
    #[must_use]
    pub fn lasting(facts: &UsbDevice) -> Self {
        Self::serial(facts).unwrap_or_else(|| Self::port(facts))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial(serial) => write!(f, "serial {serial}"),
            Self::Port(path) => write!(f, "port {path}"),
            Self::Product(vendor, product) => write!(f, "product {vendor:04x}:{product:04x}"),
        }
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let error = || ScopeError(text.chars().take(60).collect());
        match text.split_once(' ') {
            Some(("serial", serial)) => Self::of_serial(serial).ok_or_else(error),
            Some(("port", path)) if !path.is_empty() => Ok(Self::Port(path.to_owned())),
            Some(("product", ids)) => {
                let hex = |id: &str| u16::from_str_radix(id, 16).ok().filter(|_| id.len() == 4);
                let ids = ids.split_once(':').and_then(|(v, p)| hex(v).zip(hex(p)));
                ids.map(|(vendor, product)| Self::Product(vendor, product))
                    .ok_or_else(error)
            }
            _ => Err(error()),
        }
    }
}

impl TryFrom<String> for Scope {
    type Error = ScopeError;

    fn try_from(text: String) -> Result<Self, ScopeError> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ruling {
    /// Leave it alone, although it is a serial device.
    Ignore,
    /// Export it, although it is none. What this Pi needs itself is not exported all the same.
    Export,
}

impl Ruling {
    /// As it is stored.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::Export => "export",
        }
    }

    /// From its word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Ignore, Self::Export]
            .into_iter()
            .find(|ruling| ruling.word() == word)
    }
}

/// One name, rule or hold, or that there is none any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// The name of a device.
    Alias(Scope, Option<Alias>),
    /// What is done with devices.
    Rule(Scope, Option<Ruling>),
    /// Whether a board is held back.
    Held(Scope, bool),
}

/// All names, rules and holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    aliases: BTreeMap<Scope, Alias>,
    rules: BTreeMap<Scope, Ruling>,
    held: BTreeSet<Scope>,
}

impl Kept {
    /// Take in a decision. Returns whether it made a difference; a name that clashes with another
    /// device's, and what is too much, makes none.
    pub fn take(&mut self, keep: &Keep) -> bool {
        match keep {
            Keep::Alias(scope, Some(alias)) => {
                self.clash(scope, alias).is_none() && put(&mut self.aliases, scope, alias)
            }
            Keep::Alias(scope, None) => self.aliases.remove(scope).is_some(),
            Keep::Rule(scope, Some(ruling)) => put(&mut self.rules, scope, ruling),
            Keep::Rule(scope, None) => self.rules.remove(scope).is_some(),
            Keep::Held(scope, true) => self.can_hold() && self.held.insert(scope.clone()),
            Keep::Held(scope, false) => self.held.remove(scope),
        }
    }

    /// Another device's name that this one clashes with.
    #[must_use]
    pub fn clash(&self, scope: &Scope, alias: &Alias) -> Option<&Alias> {
        self.aliases
            .iter()
            .find(|(other, taken)| *other != scope && alias.clashes_with(taken))
            .map(|(_, taken)| taken)
    }

    /// Names, by what they are kept by.
    pub fn aliases(&self) -> impl Iterator<Item = (&Scope, &Alias)> {
        self.aliases.iter()
    }

    /// Rules, by what they are about.
    pub fn rules(&self) -> impl Iterator<Item = (&Scope, Ruling)> {
        self.rules.iter().map(|(scope, ruling)| (scope, *ruling))
    }

    /// By what boards are held back, also those that are not plugged in.
    pub fn holds(&self) -> impl Iterator<Item = &Scope> {
        self.held.iter()
    }

    /// A device's name and what it is kept by. `heir_of` is the board of which it seems to be
    /// another guise.
    #[must_use]
    pub fn alias(&self, facts: &UsbDevice, heir_of: Option<&Scope>) -> Option<(&Scope, &Alias)> {
        let known = |scope: Option<Scope>| self.aliases.get_key_value(&scope?);
        known(Scope::serial(facts))
            .or_else(|| known(heir_of.cloned()))
            .or_else(|| known(Some(Scope::port(facts))))
    }

    /// By what a device is held back; nothing where it is not. A hold on a port is about the board
    /// without a serial number that was in it, so another one that has a number is free.
    pub fn held<'a>(
        &'a self,
        facts: &UsbDevice,
        heir_of: Option<&Scope>,
    ) -> impl Iterator<Item = &'a Scope> {
        let scopes =
            (!self.held.is_empty()).then(|| [Some(Scope::lasting(facts)), heir_of.cloned()]);
        let scopes = scopes.into_iter().flatten().flatten();
        scopes.filter_map(|scope| self.held.get(&scope))
    }

    /// Whether a device's serial number can make a difference to what is done with it.
    #[must_use]
    pub fn depends_on_serial(&self) -> bool {
        let by_serial = |scope: &Scope| matches!(scope, Scope::Serial(_));
        !self.held.is_empty() || self.rules.keys().any(by_serial)
    }

    /// Whether there is room for one more hold.
    #[must_use]
    pub fn can_hold(&self) -> bool {
        self.held.len() < MOST_KEPT
    }

    /// The rule that decides about a device: the narrowest one.
    #[must_use]
    pub fn rule(&self, facts: &UsbDevice) -> Option<(&Scope, Ruling)> {
        [
            Scope::serial(facts),
            Some(Scope::port(facts)),
            Some(Scope::product(facts)),
        ]
        .into_iter()
        .flatten()
        .find_map(|scope| self.rules.get_key_value(&scope))
        .map(|(scope, ruling)| (scope, *ruling))
    }

    /// Whether a device is to be exported, by its own merits and the rules. What this Pi needs
    /// itself is refused by the first, and no rule changes that.
    #[must_use]
    pub fn verdict(&self, facts: &UsbDevice) -> Verdict {
        match (&facts.verdict, self.rule(facts)) {
            (Verdict::Refuse(_), _)
            | (_, None)
            | (Verdict::Export(_), Some((_, Ruling::Export))) => facts.verdict.clone(),
            (_, Some((scope, Ruling::Ignore))) => {
                Verdict::Skip(format!("a rule says to leave {} alone", phrase(scope)))
            }
            (Verdict::Skip(_), Some((scope, Ruling::Export))) => {
                Verdict::Export(format!("by a rule for {}", phrase(scope)))
            }
        }
    }
}

/// A scope in a sentence.
fn phrase(scope: &Scope) -> String {
    match scope {
        Scope::Serial(serial) => format!("serial number {serial}"),
        Scope::Port(_) => "this port".to_owned(),
        Scope::Product(vendor, product) => format!("all {vendor:04x}:{product:04x}"),
    }
}

fn put<V: Clone + PartialEq>(map: &mut BTreeMap<Scope, V>, scope: &Scope, value: &V) -> bool {
    if map.len() >= MOST_KEPT && !map.contains_key(scope) || map.get(scope) == Some(value) {
        return false;
    }
    map.insert(scope.clone(), value.clone());
    true
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
