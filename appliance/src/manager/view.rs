//! What the manager knows, for people and programs.

use std::time::Duration;

use protocol::{
    Alias, BusId, DevId,
    line::{ALIAS_DIR, Attachment, Named, VmHello},
};
use serde::Serialize;

use super::{
    Identity, Ruling, Scope,
    state::{Act, Device, Session, State},
};
use crate::{
    usb::{UsbDevice, Verdict},
    vm,
};

/// A picture of everything. Durations are whole milliseconds since the start of the process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    /// The pairing, none when there is none.
    pub pairing: Option<vm::Pairing>,
    /// The session with the VM.
    pub session: SessionView,
    /// Plugged-in devices in busid order, without root hubs.
    pub devices: Vec<DeviceView>,
    /// vhci ports of the VM for low-, full- and high-speed devices: free, total.
    pub vhci_ports: Option<(u32, u32)>,
    /// Every name that a person gave, also of devices that are not plugged in.
    pub aliases: Vec<AliasView>,
    /// Every rule.
    pub rules: Vec<RuleView>,
    /// Every hold, also of boards that are not plugged in.
    pub holds: Vec<HoldView>,
}

/// A name that a person gave a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AliasView {
    /// The name.
    pub alias: Alias,
    /// What it is kept by.
    pub scope: Scope,
    /// The device that has it now, if it is plugged in.
    pub busid: Option<BusId>,
}

/// A rule that a person made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleView {
    /// Which devices it is about.
    pub scope: Scope,
    /// What it says.
    pub ruling: Ruling,
}

/// A board that a person holds back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HoldView {
    /// What it is held back by.
    pub scope: Scope,
    /// The device that is held back by it now, if it is plugged in.
    pub busid: Option<BusId>,
}

/// The session with the VM.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum SessionView {
    /// No vm.conf.
    NotPaired,
    /// Not up; with the latest failure, if one happened yet.
    Down {
        /// Why.
        failure: Option<vm::Failure>,
    },
    /// Up.
    Up {
        /// The VM's greeting.
        hello: VmHello,
    },
}

/// A plugged-in device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceView {
    /// Facts from sysfs.
    #[serde(flatten)]
    pub facts: UsbDevice,
    /// Its lasting identity.
    pub identity: Identity,
    /// How it stands.
    #[serde(flatten)]
    pub state: DeviceState,
    /// From plug to tty, in milliseconds, for a device plugged in while the session was up.
    pub plug_to_tty_ms: Option<u64>,
    /// When it was attached; none when it is not, or was before the appliance started.
    pub attached_at_ms: Option<u64>,
    /// The name that a person gave it.
    pub alias: Option<Alias>,
    /// What its name is kept by, or would be.
    pub scope: Scope,
    /// The links that the VM has for its ttys under its name, in their order.
    pub links: Vec<String>,
    /// The rule that decided about it.
    pub rule: Option<RuleView>,
    /// Why its port could not be switched off and on when somebody asked for it a moment ago.
    pub power_failure: Option<String>,
    /// Whether a Detach holds it back; not where [`super::MOST_KEPT`] others are held back already.
    #[serde(skip)]
    pub can_be_held: bool,
}

/// How a device stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum DeviceState {
    /// Left alone.
    Skipped {
        /// Why.
        why: String,
    },
    /// Exportable, not attached, and nothing is on its way.
    Bound {
        /// Held back by a person.
        held: bool,
    },
    /// On its way to the VM.
    Attaching,
    /// Its port is being switched off and on; it is expected back in a moment.
    Cycling,
    /// Its port was switched off and on, and it did not come back.
    Missing,
    /// Attached to the VM.
    Attached {
        /// How the VM has it; none until its list has come.
        attachment: Option<Attachment>,
        /// The VM does not answer at the moment; the attachment is kept for the grace time.
        silent: bool,
    },
    /// Something is wrong.
    Failed {
        /// What.
        message: String,
        /// What mends it.
        remedy: Option<String>,
        /// When it is tried again.
        next_try_ms: u64,
    },
}

impl State {
    /// A picture of everything.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            pairing: self.pairing.clone(),
            session: match &self.session {
                Session::NotPaired => SessionView::NotPaired,
                Session::Down(failure) => SessionView::Down {
                    failure: failure.clone(),
                },
                Session::Up { hello, .. } => SessionView::Up {
                    hello: hello.clone(),
                },
            },
            devices: self.device_views(),
            vhci_ports: self.ports_view(),
            aliases: self.alias_views(),
            rules: self
                .kept
                .rules()
                .map(|(scope, ruling)| RuleView {
                    scope: scope.clone(),
                    ruling,
                })
                .collect(),
            holds: self.hold_views(),
        }
    }

    /// The VM's latest list is a moment old: what was attached since has its port.
    fn ports_view(&self) -> Option<(u32, u32)> {
        let (free, total) = self.free_ports?;
        let is_super = |busid| {
            let device: Option<&Device> = self.devices.get(busid);
            device.is_some_and(|device| device.facts.speed.is_super())
        };
        let taken = self.vm_ports.keys().filter(|(busid, _)| !is_super(busid));
        let taken = u32::try_from(taken.count()).unwrap_or(u32::MAX);
        Some((free.min(total.saturating_sub(taken)), total))
    }

    fn device_views(&self) -> Vec<DeviceView> {
        let named = self.named();
        let name_of = |busid: &BusId| named.iter().find(|named| named.busid == *busid);
        let present = self
            .devices
            .iter()
            .map(|(busid, device)| self.device_view(device, name_of(busid)));
        // What is switched off keeps its place, so that nothing moves under a finger.
        let off = self
            .cycles
            .iter()
            .filter(|(busid, _)| !self.devices.contains_key(busid))
            .map(|(_, cycle)| {
                let device = Device::new(cycle.facts.clone(), self.now);
                let state = if cycle.is_awaited(self.now) {
                    DeviceState::Cycling
                } else {
                    DeviceState::Missing
                };
                DeviceView {
                    state,
                    ..self.device_view(&device, None)
                }
            });
        let mut views: Vec<DeviceView> = present.chain(off).collect();
        views.sort_by(|a, b| a.facts.busid.cmp(&b.facts.busid));
        views
    }

    fn alias_views(&self) -> Vec<AliasView> {
        let named = self.named();
        let holder = |alias: &Alias| named.iter().find(|named| named.alias == *alias);
        self.kept
            .aliases()
            .map(|(scope, alias)| AliasView {
                alias: alias.clone(),
                scope: scope.clone(),
                busid: holder(alias).map(|named| named.busid.clone()),
            })
            .collect()
    }

    fn hold_views(&self) -> Vec<HoldView> {
        let holds = |device: &Device, scope: &Scope| {
            let heir_of = device.heir_of.as_ref();
            self.kept
                .held(&device.facts, heir_of)
                .any(|one| one == scope)
        };
        let busid = |scope: &Scope| {
            let mut devices = self.devices.values();
            let device = devices.find(|device| holds(device, scope))?;
            Some(device.facts.busid.clone())
        };
        self.kept
            .holds()
            .map(|scope| HoldView {
                busid: busid(scope),
                scope: scope.clone(),
            })
            .collect()
    }

    fn device_view(&self, device: &Device, named: Option<&Named>) -> DeviceView {
        let mut facts = device.facts.clone();
        facts.verdict = self.verdict(&facts);
        let state = self.device_state(device, &facts.verdict);
        let heir_of = device.heir_of.as_ref();
        let scope = match self.kept.alias(&facts, heir_of) {
            Some((scope, _)) => scope.clone(),
            None => device.lasting(),
        };
        let told = named.filter(|named| self.naming.is_told(named));
        let ttys = match &state {
            DeviceState::Attached {
                attachment: Some(attachment),
                ..
            } => attachment.ttys.len(),
            _ => 0,
        };
        let failed = self.cycles.get(&facts.busid).and_then(|cycle| {
            let (_, result) = cycle.ended.as_ref()?;
            result.as_ref().err().cloned()
        });
        DeviceView {
            identity: Identity::of(&facts),
            state,
            plug_to_tty_ms: device.plug_to_tty.map(millis),
            attached_at_ms: device.attached_at.map(millis),
            alias: named.map(|named| named.alias.clone()),
            scope,
            links: told
                .map(|named| (0..ttys).map(|tty| format!("{ALIAS_DIR}/{}", named.alias.link(tty))))
                .into_iter()
                .flatten()
                .collect(),
            rule: self.kept.rule(&facts).map(|(scope, ruling)| RuleView {
                scope: scope.clone(),
                ruling,
            }),
            power_failure: failed,
            can_be_held: self.is_held(device) || self.kept.can_hold(),
            facts,
        }
    }

    fn device_state(&self, device: &Device, verdict: &Verdict) -> DeviceState {
        let (busid, devid): (&BusId, DevId) = (&device.facts.busid, device.facts.devid);
        if device.busy == Some(Act::Cycling) {
            return DeviceState::Cycling;
        }
        if let Verdict::Skip(why) | Verdict::Refuse(why) = verdict {
            return DeviceState::Skipped { why: why.clone() };
        }
        // A hang-up may be the first sign of an unplug; until that is known nothing is said.
        let hung_up = device.hold_off > self.now && self.listening();
        if device.is_used() || hung_up {
            let port = self.vm_ports.get(&(busid.clone(), devid));
            let attachment = port.map(|port| port.attachment.clone());
            // A list may come while the connect waits for the ttys.
            let without_tty = attachment.as_ref().is_none_or(|a| a.ttys.is_empty());
            if without_tty && self.is_moving(busid, devid) {
                return DeviceState::Attaching;
            }
            return DeviceState::Attached {
                attachment,
                silent: !self.listening(),
            };
        }
        let held = self.is_held(device);
        if let (false, Some(failure)) = (held, &device.failure) {
            return DeviceState::Failed {
                message: failure.message.clone(),
                remedy: failure.remedy.clone(),
                next_try_ms: millis(failure.next_try),
            };
        }
        if !held && (device.busy.is_some() || !device.facts.is_bound() || self.listening()) {
            return DeviceState::Attaching;
        }
        DeviceState::Bound { held }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
