//! What the screen shows: nobody can log in there, so it says where the portal is and how things
//! stand, again after each change.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::fs::OFlags;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::route;
use crate::manager::{
    View,
    view::{DeviceState, SessionView},
};

/// The device: what the kernel's command line names last.
pub const PATH: &str = "/dev/console";
/// How often the address is looked at; nothing tells of a new one.
const LOOK: Duration = Duration::from_secs(5);
/// From a change to its being shown, with those that follow it.
const SETTLE: Duration = Duration::from_secs(1);

/// Keep the screen up to date. `notices` are sentences about what is wrong. Ends with the manager.
pub async fn show(
    path: &Path,
    mut view: watch::Receiver<Arc<View>>,
    notices: impl Fn() -> Vec<String>,
    name: impl Fn() -> Option<String>,
) {
    let mut shown = String::new();
    loop {
        let now = screen(
            address(),
            name(),
            &view.borrow_and_update().clone(),
            &notices(),
        );
        if now != shown {
            shown.clone_from(&now);
            let path = path.to_owned();
            // A serial line takes a hundred microseconds for each character.
            let written = spawn_blocking(move || write(&path, &now)).await;
            if let Ok(Err(error)) = written {
                tracing::debug!(%error, "the screen cannot be written to");
            }
        }
        if let Ok(Err(_)) = timeout(LOOK, view.changed()).await {
            return;
        }
        // A plug changes it several times within a moment, in which there is more urgent work.
        sleep(SETTLE).await;
    }
}

/// Does not wait for a serial line that is stuck.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut console = OpenOptions::new()
        .write(true)
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed())
        .open(path)?;
    console.write_all(text.as_bytes())
}

/// The address that others reach the box at; none before there is a network.
fn address() -> Option<IpAddr> {
    route::own_address().or_else(own)
}

/// The first IPv4 address: a box with a fixed address and no gateway is on a network too.
fn own() -> Option<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().ok()?;
    let mut addresses = interfaces.iter().map(if_addrs::Interface::ip);
    addresses.find(|address| address.is_ipv4() && !address.is_loopback())
}

fn screen(
    address: Option<IpAddr>,
    name: Option<String>,
    view: &View,
    notices: &[String],
) -> String {
    let mut text = format!("\r\nusbip-pi {}\r\n", env!("CARGO_PKG_VERSION"));
    let mut line = |label: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = write!(text, "  {label:<9}{value}\r\n");
    };
    match address {
        Some(address) => {
            // An IPv6 one is in brackets.
            let by_address = SocketAddr::new(address, 8080);
            let by_name = name.map(|name| format!(" or http://{name}:8080"));
            let portal = format!("http://{by_address}{}", by_name.unwrap_or_default());
            line("portal", &portal);
        }
        None => line("portal", "no network yet: is the cable plugged in?"),
    }
    let vm = match &view.session {
        SessionView::NotPaired => "not paired: open the portal",
        SessionView::Down { failure: None } => "connecting",
        SessionView::Down { failure: Some(_) } => "no connection: the portal says why",
        SessionView::Up { .. } => "connected",
    };
    line("VM", vm);
    let count = |wanted: fn(&DeviceState) -> bool| {
        let devices = view.devices.iter();
        devices.filter(|device| wanted(&device.state)).count()
    };
    let attached = count(|state| matches!(state, DeviceState::Attached { .. }));
    let offered = count(|state| !matches!(state, DeviceState::Skipped { .. }));
    line("devices", &format!("{attached} of {offered} attached"));
    for notice in notices {
        let notice: String = notice.chars().filter(|c| !c.is_control()).collect();
        line("warning", &notice);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_screen_says_where_to_go_and_what_is_wrong() {
        let view = View {
            aliases: Vec::new(),
            rules: Vec::new(),
            holds: Vec::new(),
            pairing: None,
            session: SessionView::NotPaired,
            devices: Vec::new(),
            vhci_ports: None,
        };
        let text = screen(None, None, &view, &[]);
        assert!(text.contains("no network yet"), "{text}");
        assert!(text.contains("not paired"), "{text}");

        let address = Some(IpAddr::from([10, 0, 0, 7]));
        let text = screen(
            address,
            Some("bench.local".into()),
            &view,
            &["line 3 is wrong\u{1b}[2J".into()],
        );
        assert!(
            text.contains("http://10.0.0.7:8080 or http://bench.local:8080"),
            "{text}"
        );
        assert!(text.contains("line 3 is wrong[2J\r\n"), "{text}");
    }
}
