//! The box itself.
//!
//! - [`conf_file`]: the KEY=VALUE files a person may write
//! - [`console`]: what its screen shows
//! - [`durable`]: files that survive a power cut whole
//! - [`first_start`]: `usbip-pi.toml` on the card's FAT partition
//! - [`kernel_log`]: the log, which is the kernel's ring
//! - [`route`]: the way to other machines
//! - [`settings`]: what may be set on it, `/etc/usbip/appliance.conf`
//! - [`watchdog`]: starts the box anew when it hangs

use std::{path::Path, sync::Arc};

use crate::manager;

pub mod conf_file;
pub mod console;
pub mod durable;
pub mod first_start;
pub mod kernel_log;
pub mod route;
pub mod settings;
pub mod watchdog;

pub use conf_file::ConfError;
pub use kernel_log::KernelLog;
pub use settings::Settings;
pub use watchdog::Watchdog;

/// The box's name when it has none of its own.
const NAME: &str = "usbip-pi";

/// The box's name, without a domain.
#[must_use]
pub fn name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    match name.split('.').next() {
        // As a kernel has it that was not told, and as a system that was not configured.
        None | Some("" | "(none)" | "localhost") => NAME.to_owned(),
        Some(name) => name.to_owned(),
    }
}

/// Feeds the watchdog while the manager's loop answers, and keeps the screen up to date. Ends with the
/// manager.
pub async fn tend(
    watchdog: Option<&mut Watchdog>,
    manager: manager::Handle,
    notices: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    name: impl Fn() -> Option<String>,
) {
    let feed = async {
        match watchdog {
            Some(watchdog) => watchdog.feed(|| manager.silent_for()).await,
            None => std::future::pending().await,
        }
    };
    let view = manager.view.clone();
    let screen = console::show(Path::new(console::PATH), view, || notices(), name);
    tokio::select! {
        () = feed => {}
        () = screen => {}
    }
}
