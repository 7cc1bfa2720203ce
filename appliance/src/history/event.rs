//! What can happen.

use std::net::IpAddr;

use protocol::{
    BusId,
    line::{Attachment, Timings},
};
use serde::{Deserialize, Serialize};

use crate::{manager::Identity, usb::UsbDevice};

/// Longest text that is kept, in characters.
const LONGEST: usize = 300;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $label:literal;)*) => {
        /// Kinds of event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub enum Kind {
            $($(#[$doc])* #[serde(rename = $word)] $name,)*
        }

        impl Kind {
            /// All of them, in the order in which people look for them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As it is stored and as programs read it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// For people.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

kinds! {
    /// A device was plugged in.
    Plugged = "plugged", "Plugged in";
    /// A device was there when the appliance started.
    Found = "found", "Found at start";
    /// A device was unplugged.
    Unplugged = "unplugged", "Unplugged";
    /// usbip-host has the device.
    Bound = "bound", "Bound";
    /// The device is on the VM.
    Attached = "attached", "Attached";
    /// The device is no longer on the VM, though still plugged in.
    Detached = "detached", "Detached";
    /// Binding or attaching a device failed.
    Failed = "failed", "Failed";
    /// An import was refused.
    Refused = "import_refused", "Import refused";
    /// The session with the VM is up.
    SessionUp = "session_up", "Session up";
    /// The session with the VM ended.
    SessionLost = "session_lost", "Session lost";
    /// No session with the VM can be had.
    SessionFailed = "session_failed", "No session";
    /// Another VM was paired, or the pairing removed.
    Pairing = "pairing", "Pairing";
    /// A person or program asked for something.
    Action = "action", "Action";
    /// Somebody signed in.
    SignIn = "sign_in", "Signed in";
    /// Somebody tried to sign in with a wrong password.
    SignInFailed = "sign_in_failed", "Sign-in failed";
    /// The portal was claimed, or its password changed or reset.
    Password = "password", "Password";
    /// An API token was made or removed.
    Token = "token", "API token";
    /// Settings were changed.
    Settings = "settings", "Settings";
    /// The firmware was updated, rolled back, or that failed.
    Update = "update", "Update";
    /// The appliance started.
    Started = "started", "Started";
    /// The appliance was told to end.
    Stopped = "stopped", "Stopped";
    /// Something that only another version of the appliance knows.
    Other = "other", "Other";
}

impl Kind {
    /// The kind that is stored like this, unless another version's.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == word)
    }

    /// Whether anybody on the network can cause it, as often as they like. Of these fewer are kept.
    #[must_use]
    pub fn is_noise(self) -> bool {
        matches!(self, Self::Refused | Self::SignInFailed)
    }
}

/// Something that happened. Secrets do not belong in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What.
    pub kind: Kind,
    /// To which device.
    pub device: Option<Subject>,
    /// Who on the network caused it.
    pub peer: Option<IpAddr>,
    /// More, for people: why, what exactly, by whom.
    pub message: Option<String>,
    /// For [`Kind::Attached`].
    pub attached: Option<AttachDetail>,
}

/// The device that an event is about, as it was called then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its lasting identity.
    pub identity: Identity,
    /// Where it was plugged in.
    pub busid: BusId,
    /// What it calls itself.
    pub name: Option<String>,
}

/// How a device was attached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttachDetail {
    /// Device nodes on the VM.
    pub ttys: Vec<String>,
    /// Number of the vhci port.
    pub port: u32,
    /// From plug to tty, in milliseconds, for a device plugged in while the session was up.
    pub plug_to_tty_ms: Option<u64>,
    /// How long the parts took; none where the VM attached it by itself.
    pub timings: Option<Timings>,
}

impl Event {
    /// An event with nothing but its kind.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            device: None,
            peer: None,
            message: None,
            attached: None,
        }
    }

    /// The same, about this device.
    #[must_use]
    pub fn about(self, device: Subject) -> Self {
        let device = Some(device);
        Self { device, ..self }
    }

    /// The same, caused by this address.
    #[must_use]
    pub fn by(self, peer: IpAddr) -> Self {
        let peer = Some(peer.to_canonical());
        Self { peer, ..self }
    }

    /// The same, with more for people. Longer texts are cut.
    #[must_use]
    pub fn saying(self, message: impl AsRef<str>) -> Self {
        let message = Some(cut(message.as_ref()));
        Self { message, ..self }
    }
}

impl Subject {
    /// This device, plugged in now.
    #[must_use]
    pub fn of(device: &UsbDevice) -> Self {
        Self {
            identity: Identity::of(device),
            busid: device.busid.clone(),
            name: device.product_name.as_deref().map(cut),
        }
    }
}

impl AttachDetail {
    /// Of this attachment.
    #[must_use]
    pub fn of(attachment: &Attachment, plug_to_tty_ms: Option<u64>) -> Self {
        let ttys = attachment.ttys.iter().take(16);
        Self {
            ttys: ttys.map(|tty| cut(&tty.node)).collect(),
            port: attachment.port,
            plug_to_tty_ms,
            timings: attachment.timings,
        }
    }
}

/// A device that is there: what is kept about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Its lasting identity.
    pub identity: Identity,
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
    /// The physical port, as [`UsbDevice::port_path`].
    pub port: String,
    /// Whether it was plugged in just now.
    pub plugged: bool,
}

impl Sighting {
    /// Of this device.
    #[must_use]
    pub fn of(device: &UsbDevice, plugged: bool) -> Self {
        Self {
            identity: Identity::of(device),
            vendor: device.vendor,
            product: device.product,
            manufacturer: device.manufacturer.as_deref().map(cut),
            name: device.product_name.as_deref().map(cut),
            serial: device.serial.as_deref().map(cut),
            port: cut(&device.port_path),
            plugged,
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}
