//! The appliance: started by init, runs until it is told to stop.

use std::{net::Ipv6Addr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use appliance::{
    access::{self, Access},
    history::{self, Event, Kind, Store},
    manager::{Inputs, Manager},
    portal,
    system::{
        self, ConfError, KernelLog, Settings, Watchdog, conf_file, first_start, kernel_log,
        settings, watchdog,
    },
    usb::{Monitor, Stub, Sysfs, ports, power},
    usbipd::{self, Exports, Server},
    vm::{Config, Discovery, Link, askpass},
    wiring::{self, Kernel, Pi},
};
use protocol::line::{PROTOCOL, PiHello};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

const DATABASE: &str = "/data/history.db";
/// The seeds' port of the portal.
const PORTAL: u16 = 8080;
const EVENTS: usize = 256;

fn main() -> anyhow::Result<()> {
    if let Some(socket) = std::env::var_os(askpass::SOCKET) {
        return askpass::answer(&socket).context("no password is offered");
    }
    // As /etc/init.d/S15settings calls it, before the network is up.
    if let [_, word, file] = std::env::args().collect::<Vec<_>>().as_slice()
        && word == "configure"
    {
        first_start::run(Path::new(file));
        return Ok(());
    }
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("APPLIANCE_LOG")
                .unwrap_or_else(|_| "info".into()),
        )
        .without_time()
        .with_ansi(false)
        .with_writer(kernel_log::Writer::new())
        .init();
    // Ports that were off when an earlier process failed; hubs may take their time.
    std::thread::spawn(|| power::all_on(&Sysfs::new("/sys")));
    // One thread: nothing here computes, what blocks has threads of its own, and each more wakes the
    // others.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?
        .block_on(run())
}

async fn run() -> anyhow::Result<()> {
    let mut settings = conf_file::follow(settings::PATH.into(), Settings::read, Arc::default());
    let first = usable(&settings.borrow_and_update());
    let grace = Duration::from_secs(first.grace_seconds.into());
    let sysfs = Sysfs::new("/sys");
    set_ports(sysfs.clone(), first.fast_enumeration).await;
    let store = Store::open(Path::new(DATABASE)).await;
    let started = store.clone();
    // Reading may wait for a slow disk, and nothing else should.
    tokio::spawn(async move { history::record_start(&started, env!("CARGO_PKG_VERSION")).await });

    let access = Access::open(access::Config::default(), store.clone()).await;

    let stub = Arc::new(Stub::new(sysfs.clone()));
    let (changes, usb) = mpsc::channel(EVENTS);
    let monitor = Monitor::spawn(sysfs.clone(), changes).context("failed to watch the bus")?;

    let exports = Exports {
        peers: [].into(),
        devices: [].into(),
        fresh: [].into(),
        grace,
    };
    let (exports, exported) = watch::channel(exports);
    let (events, usbipd_events) = mpsc::channel(EVENTS);
    let server = Server::new(Arc::new(Kernel(Arc::clone(&stub))), exported, events)
        .context("failed to set up the USB/IP server")?;
    let listener = usbipd::bind((Ipv6Addr::UNSPECIFIED, usbipd::PORT).into())
        .context("failed to open the USB/IP port")?;
    let sessions = server.handle();

    let mut vm_config = Config::new(hello(first.grace_seconds)?);
    let discovery = Discovery::start(system::name(), PORTAL);
    vm_config.discovery = discovery.clone();
    let (link, vm) = Link::spawn(vm_config.clone());
    let pairer = wiring::pairer(vm_config, &link);

    let (graces, grace) = watch::channel(grace);
    let parts = (Pi { stub, monitor }, sessions, link.clone(), store.clone());
    let (manager, handle) = Manager::new(parts, (store.recall(), store.recall_kept()), exports);
    let inputs = Inputs {
        usb,
        usbipd: usbipd_events,
        vm,
        grace,
    };

    let watched = handle.clone();
    let wrong = [access.notice(), first_start::report()];
    let notices = notices(settings.clone(), store.clone(), wrong);
    let mut watchdog = Watchdog::start(Path::new(watchdog::PATH));
    let tended = system::tend(
        watchdog.as_mut(),
        handle.clone(),
        Arc::clone(&notices),
        move || discovery.name(),
    );
    let context = portal::Context {
        view: handle.view,
        commands: handle.commands,
        pairer,
        access,
        started: watched.started(),
        alive: Arc::new(move || watched.is_alive()),
        notices,
        history: store.clone(),
        log: KernelLog::default(),
        names: vec![system::name()],
        joins: portal::Joins::default(),
        packages: portal::Packages::new(portal::packages::PATH.into()),
    };
    let address = (Ipv6Addr::UNSPECIFIED, PORTAL).into();
    let portal = portal::serve(address, context, std::future::pending());

    let settle = link.clone();
    let follow_settings = follow(&mut settings, async |now| {
        set_ports(sysfs.clone(), now.fast_enumeration).await;
        settle.set_grace(now.grace_seconds);
        graces.send_replace(Duration::from_secs(now.grace_seconds.into()));
        store.append(changed(&now));
    });

    let mut terminate = signal(SignalKind::terminate()).context("failed to watch for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to watch for signals")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "appliance started");
    // Sessions live on in the kernel whichever way this ends.
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = manager.run(inputs) => Err(anyhow::anyhow!("the manager ended")),
        () = server.serve(listener, std::future::pending()) => {
            Err(anyhow::anyhow!("the USB/IP server ended"))
        }
        ended = portal => ended.context("failed to serve the portal"),
        () = tended => Err(anyhow::anyhow!("the box is not tended any more")),
        () = follow_settings => Err(anyhow::anyhow!("the settings are not followed any more")),
    };
    if ended.is_ok() {
        // This end was planned; after any other one the watchdog runs on until the next start feeds it.
        watchdog.into_iter().for_each(Watchdog::stop);
    }
    drop(settle);
    store.append(Event::new(Kind::Stopped));
    link.close().await;
    store.close().await;
    ended
}

/// What is wrong with the box itself, at any time; `at_start` is what was wrong when it started.
fn notices(
    settings: watch::Receiver<Result<Settings, Arc<ConfError>>>,
    store: Store,
    at_start: [Option<String>; 2],
) -> Arc<dyn Fn() -> Vec<String> + Send + Sync> {
    Arc::new(move || {
        let wrong = settings.borrow().as_ref().err().map(ToString::to_string);
        let at_start = at_start.iter().flatten().cloned();
        (store.notices().into_iter().chain(wrong).chain(at_start)).collect()
    })
}

/// How this Pi introduces itself to the VM.
fn hello(grace_seconds: u16) -> anyhow::Result<PiHello> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .context("failed to read the boot id")?;
    Ok(PiHello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: boot_id.trim().to_owned(),
        grace_seconds,
        gives_next: true,
    })
}

/// Apply the settings whenever they change.
async fn follow(
    settings: &mut watch::Receiver<Result<Settings, Arc<ConfError>>>,
    apply: impl AsyncFn(Settings),
) {
    while settings.changed().await.is_ok() {
        let now = usable(&settings.borrow_and_update());
        tracing::info!(
            grace_seconds = now.grace_seconds,
            fast_enumeration = now.fast_enumeration,
            "new settings"
        );
        apply(now).await;
    }
}

/// The settings to use; wrong ones are said, and the defaults taken.
fn usable(settings: &Result<Settings, Arc<ConfError>>) -> Settings {
    settings.clone().unwrap_or_else(|error| {
        tracing::error!(%error, remedy = error.remedy(), "using the default settings");
        Settings::default()
    })
}

async fn set_ports(sysfs: Sysfs, fast: bool) {
    let set = tokio::task::spawn_blocking(move || ports::set_fast_enumeration(&sysfs, fast));
    match set.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the ports keep their way of enumeration"),
        Err(error) => tracing::error!(%error, "failed to set the ports"),
    }
}

/// The settings are these now, for the history.
fn changed(settings: &Settings) -> Event {
    let fast = if settings.fast_enumeration {
        "on"
    } else {
        "off"
    };
    let grace = settings.grace_seconds;
    Event::new(Kind::Settings).saying(format!("grace {grace} s, fast enumeration {fast}"))
}
