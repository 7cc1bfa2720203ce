//! The one place that decides.
//!
//! - [`input`]: what the manager hears, and what it orders
//! - [`state`]: what it knows
//! - [`mod@step`]: takes in one input; pure
//! - [`plan`]: compares what is with what should be, and orders the difference; pure
//! - [`record`]: what of it is history; pure
//! - [`view`]: what it knows, for people and programs
//! - [`run`]: the loop that hears the inputs and has the orders carried out
//! - [`identity`]: what a device is remembered by
//! - [`kept`]: the names, rules and holds that people made
//! - [`power`]: a port that is switched off and on
//! - [`naming`]: which device has which name, and that the VM knows
//!
//! Level-triggered: every input ends in a comparison of the desired state (each exportable device
//! that nobody holds back is attached to the paired VM) with the actual one (sysfs here, vhci
//! there). Events make it fast; the reconcile on every session and every 30 s makes it right.

mod coming;
pub mod identity;
pub mod input;
pub mod kept;
mod naming;
pub mod plan;
mod power;
mod record;
pub mod run;
pub mod state;
pub mod step;
pub mod view;

#[cfg(test)]
mod simulation;

pub use identity::Identity;
pub use input::{Command, Effect, Input, Remembered};
pub use kept::{Keep, Kept, MOST_KEPT, Ruling, Scope};
pub use run::{Handle, Inputs, Manager, Memory, Sessions, UsbHost, VmLink};
pub use state::State;
pub use step::step;
pub use view::View;
