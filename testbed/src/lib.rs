//! Two machines under QEMU with real kernels, and the USB devices plugged into them.
//!
//! - [`image`]: kernel, initramfs and root file systems, built once and kept
//! - [`card`]: the Pi's card, as a person would have it after flashing
//! - [`machine`]: one guest: power, commands, files, kernel log, network cable
//! - [`agent`]: what runs commands inside a guest, and the line protocol to it
//! - [`usb`]: what is plugged into a guest's USB ports
//! - [`redir`]: devices played to QEMU
//! - [`pair`]: both guests together, and pairing them without hands
//! - [`pattern`]: reproducible bytes for transfers
//! - [`bench`]: how fast it all is, side by side with the stock tools
//! - [`place`]: where files are kept
//! - [`trial`]: scenarios that try the product on both machines
//! - [`prompt`]: the interactive session behind `make run`

pub mod agent;
pub mod bench;
pub mod card;
pub mod image;
pub mod machine;
pub mod pair;
pub mod pattern;
pub mod place;
pub mod prompt;
pub mod redir;
pub mod trial;
pub mod usb;
