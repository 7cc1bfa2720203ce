//! USB devices played to QEMU's `usb-redir` device over the usbredir protocol.
//!
//! A [`Port`] is one connection to QEMU and stands for one USB socket of the guest. Devices of
//! any [`Kind`] are plugged in and pulled out as often as wanted; a [`Device`] is the far side of
//! what is plugged in: the bytes on its serial lines, the speed and control lines that the guest
//! set, and a log of all that it was asked.
//!
//! ```no_run
//! # use testbed::redir::{Error, Kind, Port};
//! # use std::{path::Path, time::Duration};
//! let port = Port::connect(Path::new("run/pi-usb0.sock"))?;
//! let device = port.plug(Kind::Cp2102, Some("0042"))?;
//! device.feed(b"hello, guest")?;
//! assert!(device.wait_until(Duration::from_secs(60), |d| d.baud() == 115_200 && d.dtr()));
//! port.unplug()?;
//! # Ok::<(), Error>(())
//! ```
//!
//! Inside, from the wire up: [`wire`] encodes packets, `port` holds the connection, `board` is
//! a device without I/O, `kind` the catalogue, `descriptor` what devices say of themselves,
//! `chip` what a family must do, and one file for each family does it.

mod acm;
mod board;
mod ch341;
mod chip;
mod cp210x;
mod descriptor;
mod device;
mod ftdi;
mod kind;
mod lines;
mod other;
mod port;
mod stk500;
mod storage;
pub mod wire;

pub use descriptor::{MAX_STRING_UNITS, Strings};
pub use device::Device;
pub use kind::{Kind, UnknownKind};
pub use lines::{Entry, Event, LINE_CAPACITY};
pub use port::{Error, Port};
