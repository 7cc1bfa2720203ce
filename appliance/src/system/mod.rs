//! The box itself.
//!
//! - [`conf_file`]: the KEY=VALUE files a person may write
//! - [`durable`]: files that survive a power cut whole
//! - [`settings`]: what may be set on it, `/etc/usbip/appliance.conf`

pub mod conf_file;
pub mod durable;
pub mod settings;

pub use conf_file::ConfError;
pub use settings::Settings;
