//! The one process on the Pi.
//!
//! - [`usb`]: what is plugged in, and binding it to usbip-host
//! - [`usbipd`]: the USB/IP server on port 3240
//! - [`vm`]: the session with the paired VM
//! - [`history`]: what is kept across restarts
//! - [`access`]: who may use the portal
//! - [`portal`]: pages and events for people, an API for programs
//! - [`system`]: the box itself: settings, files
//! - [`manager`]: the one place that decides
//! - [`wiring`]: connects them
//!
//! All but the manager report facts and carry out orders; none of them decides.

pub mod access;
pub mod history;
pub mod manager;
pub mod portal;
pub mod system;
pub mod usb;
pub mod usbipd;
pub mod vm;
pub mod wiring;
