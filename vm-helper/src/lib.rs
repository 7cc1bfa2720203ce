//! The VM's side of usbip-pi: attaches the Pi's devices through the kernel's `vhci_hcd`.
//!
//! One binary under three names: `vm-helper` for people, `usb-event-handler` for the Pi's session,
//! `usb-boot-attach` for systemd. Threads and no async runtime, and no program of the stock USB/IP
//! tools is needed.

pub mod attach;
pub mod boot;
pub mod check;
pub mod cli;
pub mod config;
pub mod device;
pub mod failure;
pub mod forced;
pub mod handler;
pub mod import;
pub mod join;
mod journal;
pub mod links;
mod lock;
pub mod module;
pub mod names;
pub mod presence;
pub mod record;
pub mod resolve;
pub mod root;
mod run;
pub mod session;
pub mod vhci;
mod wait;
mod workers;
