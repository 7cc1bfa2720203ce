//! The portal with made-up content, to look at without a Pi: `cargo run --example portal_sample
//! [VIEW [PORT]]` on port 8080, where VIEW is `states` (default), `empty`, `connected`, `down`, `hostile`
//! or `flapping`.

#![expect(clippy::unwrap_used, reason = "the sample's busids are well-formed")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use appliance::{
    access::{self, Access},
    history::{Options, Store},
    portal,
    vm::{Config, FailureKind, Pairer},
};
use protocol::line::{DEFAULT_GRACE_SECONDS, PROTOCOL, PiHello};
use tokio::sync::{mpsc, watch};

#[path = "../tests/portal/past.rs"]
mod past;
#[path = "../tests/portal/sample.rs"]
mod sample;

fn hostile() -> appliance::manager::View {
    let mut view = sample::connected();
    let mut device = sample::device("1-1", "<script>alert(1)</script>\u{202e}gnp.exe");
    device.facts.manufacturer = Some("x".repeat(126));
    device.facts.serial = Some("line\nbreak \"quoted\" <b>bold</b>".into());
    let mut long = sample::attached("1-2", &"W".repeat(126), &[], "cp210x");
    long.facts.manufacturer = Some("مُصنِّع الأجهزة".into());
    view.devices = vec![device, long];
    view
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), portal::PortalError> {
    let name = std::env::args().nth(1).unwrap_or_default();
    let view = match name.as_str() {
        "empty" => sample::empty(),
        "connected" => sample::connected(),
        "hostile" => hostile(),
        "down" => sample::down(
            FailureKind::HostKeyChanged,
            "build-vm.local shows another host key than when it was paired",
            Some("if the VM was reinstalled, pair it again; if not, find out who answers there"),
        ),
        _ => sample::every_state(),
    };
    let (views, view) = watch::channel(Arc::new(view));
    let (commands, mut wishes) = mpsc::channel(8);
    let flapping = name == "flapping";
    let store = match name.as_str() {
        "empty" => Store::in_memory(Options::default()),
        _ => past::history(),
    };
    tokio::spawn(async move {
        let started = Instant::now();
        loop {
            tokio::select! {
                wish = wishes.recv() => println!("{:?} {wish:?}", started.elapsed()),
                () = tokio::time::sleep(Duration::from_millis(100)), if flapping => {
                    let mut view = sample::every_state();
                    let states = [4, 6, 2, 7].map(|at| view.devices[at].state.clone());
                    let tenths = started.elapsed().as_millis() / 100;
                    let at = usize::try_from(tenths % 4).unwrap_or_default();
                    view.devices[4].state = states[at].clone();
                    views.send_replace(Arc::new(view));
                }
            }
        }
    });
    let places = std::env::temp_dir().join("portal_sample");
    let mut config = Config::new(PiHello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").into(),
        boot_id: String::new(),
        grace_seconds: DEFAULT_GRACE_SECONDS,
        gives_next: false,
    });
    config.vm_conf = places.join("vm.conf");
    config.ssh_dir = places.join("ssh");
    config.control_dir = places.join("c");
    // Claimed with any password, and forgotten at the end.
    let folder = std::env::temp_dir().join(format!("portal-sample-{}", std::process::id()));
    let claimed = access::Config {
        password: folder.join("password"),
        reset: folder.join("reset-password"),
        uptime: || Duration::ZERO,
        ..access::Config::default()
    };
    let access = Access::open(claimed, store.clone()).await;
    let context = portal::Context {
        view,
        commands,
        pairer: Pairer::new(config, Arc::new(|| {})),
        access,
        started: tokio::time::Instant::now(),
        alive: Arc::new(|| true),
        notices: Arc::new(move || {
            let wrong = "line 3 of appliance.conf: \"grace=900\" is not between 5 and 300 seconds; the default is used";
            (name.is_empty() || name == "states")
                .then(|| wrong.to_owned())
                .into_iter()
                .collect()
        }),
        history: store,
        log: appliance::system::KernelLog::new(std::path::Path::new("/dev/kmsg")),
        names: Vec::new(),
        joins: portal::Joins::default(),
        packages: portal::Packages::new("target/packages".into()),
    };
    let port = std::env::args().nth(2).and_then(|port| port.parse().ok());
    let address = ([0; 16], port.unwrap_or(8080)).into();
    portal::serve(address, context, std::future::pending()).await
}
