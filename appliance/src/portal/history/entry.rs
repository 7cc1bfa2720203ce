//! An event or a known device as JSON. Texts from devices are as the device sent them.

use std::net::IpAddr;

use serde::Serialize;

use super::when;
use crate::{
    history::{AttachDetail, Clock, Kind, Known, Record},
    manager::View,
};

/// An event.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    /// Its place in the order of events; never used twice.
    pub sequence: i64,
    /// The kernel's boot in which it happened.
    pub boot_id: String,
    /// When, since that boot, in milliseconds.
    pub mono_ms: i64,
    /// When, as RFC 3339; null where the clock was not set.
    pub time: Option<String>,
    /// How far `time` can be trusted: `set`, `worked_out` or `unset`.
    pub clock: Clock,
    /// What.
    pub kind: Kind,
    /// To which device.
    pub device: Option<About>,
    /// Who on the network caused it.
    pub peer: Option<IpAddr>,
    /// More, for people.
    pub message: Option<String>,
    /// For `attached`.
    pub attached: Option<AttachDetail>,
    /// How often: repeats in quick succession are one event.
    pub count: u32,
    /// When it happened last, as RFC 3339; null where that is the same as `time`.
    pub last_time: Option<String>,
}

/// The device that an event is about, as it was called then.
#[derive(Debug, Serialize)]
pub(super) struct About {
    /// Its lasting identity.
    pub identity: String,
    /// Where it was plugged in.
    pub busid: String,
    /// What it calls itself.
    pub name: Option<String>,
}

impl Entry {
    pub(super) fn of(record: &Record) -> Self {
        let event = &record.event;
        let dated = record.clock != Clock::Unset;
        Self {
            sequence: record.sequence,
            boot_id: record.boot_id.to_string(),
            mono_ms: record.mono_ms,
            time: dated.then(|| when::rfc3339(record.unix_ms)),
            clock: record.clock,
            kind: event.kind,
            device: event.device.as_ref().map(|device| About {
                identity: device.identity.to_string(),
                busid: device.busid.to_string(),
                name: device.name.clone(),
            }),
            peer: event.peer,
            message: event.message.clone(),
            attached: event.attached.clone(),
            count: record.count,
            last_time: (dated && record.count > 1).then(|| when::rfc3339(record.last_ms)),
        }
    }
}

/// A known device.
#[derive(Debug, Serialize)]
pub(super) struct Device {
    /// Its lasting identity.
    pub identity: String,
    /// idVendor
    pub vendor: u16,
    /// idProduct
    pub product: u16,
    /// iManufacturer
    pub manufacturer: Option<String>,
    /// iProduct
    pub name: Option<String>,
    /// iSerialNumber
    pub serial: Option<String>,
    /// The physical port it was in last.
    pub port_path: String,
    /// When it was first seen, as RFC 3339; null where the clock was not set.
    pub first_seen: Option<String>,
    /// When it was last seen coming, going or being there at a start.
    pub last_seen: Option<String>,
    /// How often it was plugged in.
    pub plugs: u32,
    /// Where it is plugged in now.
    pub busid: Option<String>,
}

impl Device {
    pub(super) fn of(known: &Known, view: &View) -> Self {
        let there = view.devices.iter().find(|d| d.identity == known.identity);
        Self {
            identity: known.identity.to_string(),
            vendor: known.vendor,
            product: known.product,
            manufacturer: known.manufacturer.clone(),
            name: known.name.clone(),
            serial: known.serial.clone(),
            port_path: known.port.clone(),
            first_seen: known.first_ms.map(when::rfc3339),
            last_seen: known.last_ms.map(when::rfc3339),
            plugs: known.plugs,
            busid: there.map(|device| device.facts.busid.to_string()),
        }
    }
}
