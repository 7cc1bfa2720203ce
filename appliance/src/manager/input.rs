//! What the manager hears, and what it orders.

use std::time::Duration;

use protocol::{Alias, BusId, DevId, line::Request};

use super::{Identity, Keep, Ruling, Scope};
use crate::{
    history::{Event, Sighting},
    usb, usbipd, vm,
};

/// Something the manager hears.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// What was remembered from earlier runs; the first input, before any device.
    Recalled(Vec<Remembered>),
    /// The names, rules and holds that were kept from earlier runs.
    Kept(Vec<Keep>),
    /// The bus changed.
    Usb(usb::Change),
    /// [`Effect::Bind`] or [`Effect::Rebind`] ended, with a sentence if it failed.
    Bound(BusId, DevId, Result<(), String>),
    /// [`Effect::Unbind`] ended.
    Unbound(BusId, DevId, Result<(), String>),
    /// [`Effect::EndSession`] ended.
    SessionEnded(BusId, DevId, Result<(), String>),
    /// [`Effect::PowerCycle`] ended; with success the port is on again.
    PowerCycled(BusId, DevId, Result<(), String>),
    /// Something happened at port 3240.
    Usbipd(usbipd::Event),
    /// Something happened on the link to the VM.
    Vm(vm::Event),
    /// The grace time was set.
    Grace(Duration),
    /// A person or program asked for something.
    Command(Command),
    /// Time passed: at the time that [`super::State::next_wake`] names, or later.
    Tick,
}

/// What a person can ask for. Where a generation is named, what is plugged in there by now is left
/// alone if it is another one: the page that was clicked on may be an old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Attach every device that can be, also those held back, and forget all back-off.
    AttachAll,
    /// Attach one device, also when it is held back.
    Attach(BusId, Option<DevId>),
    /// Detach one device and hold it back until somebody attaches it again. Where the VM does not
    /// answer, the Pi's end of the attachment ends alone; the VM's follows once it hears of it.
    Detach(BusId, Option<DevId>),
    /// Hold boards back no longer, whether they are plugged in or not.
    Release(Scope),
    /// Switch a device's port off and on again, also while it is attached: it is unplugged and
    /// plugged in to everybody.
    PowerCycle(BusId, Option<DevId>),
    /// Give a device a name, or take it away. One that clashes with another device's is not taken.
    Name(Scope, Option<Alias>),
    /// Make or remove a rule. It takes effect at once, also for what is attached.
    Rule(Scope, Option<Ruling>),
}

/// Something the manager orders. Each of `Bind`, `Rebind`, `Unbind`, `EndSession` and `Send` is
/// answered by exactly one input, in bounded time; so is `PowerCycle`.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Read the whole bus again; answered by a snapshot.
    Rescan,
    /// Give a device to usbip-host.
    Bind(BusId, DevId),
    /// Take a device whose reset failed from usbip-host and give it back.
    Rebind(BusId, DevId),
    /// Take a device from usbip-host.
    Unbind(BusId, DevId),
    /// End the session of an imported device.
    EndSession(BusId, DevId),
    /// Switch a device's port off and on again.
    PowerCycle(BusId, DevId),
    /// Free what usbip-host keeps of devices that were unplugged.
    Sweep,
    /// Try for a session at once: the VM was heard of.
    Kick,
    /// Tell the helper.
    Send(Request),
    /// Keep this across restarts.
    Remember(Remembered),
    /// Add this to the history.
    Append(Event),
    /// Keep that this device was seen.
    Saw(Sighting),
    /// Keep a name, rule or hold across restarts, or forget it.
    Keep(Keep),
}

/// What is kept about a device across restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Which device.
    pub identity: Identity,
    /// The first tty node it had on the VM; devices are attached in that order, so that names
    /// come back the same.
    pub tty: Option<String>,
}
