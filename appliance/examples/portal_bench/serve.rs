//! The portal, the manager and the store as on a Pi; the bus and the VM are made up.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use appliance::{
    access::{self, Access},
    history::Store,
    manager::{Inputs, Manager, Sessions, UsbHost, VmLink},
    portal::{Context, Joins, Packages, Portal},
    usb::{Change, StubStatus, UsbDevice, Verdict},
    usbipd::{self, Exports},
    vm::{self, Config, Pairer, Pairing},
};
use protocol::{
    BusId, DevId,
    line::{Answer, Attachment, PROTOCOL, PiHello, Request, Tty, VmHello, VmStatus},
};
use tokio::sync::{mpsc, watch};

use super::sample;

/// Devices that stay.
const DEVICES: u16 = 8;
/// Plugged in and out: ten times a second.
const FLAP: Duration = Duration::from_millis(50);

/// Both sides of the wire.
#[derive(Clone)]
struct World {
    devices: Arc<Mutex<BTreeMap<BusId, UsbDevice>>>,
    usb: mpsc::Sender<Change>,
    vm: mpsc::Sender<vm::Event>,
    usbipd: mpsc::Sender<usbipd::Event>,
}

impl World {
    fn change(&self, busid: &BusId, devid: DevId, stub: StubStatus) -> Result<(), String> {
        let mut devices = self.devices.lock().unwrap();
        let device = devices
            .get_mut(busid)
            .filter(|device| device.devid == devid);
        device.ok_or("it is gone")?.stub = Some(stub);
        Ok(())
    }

    fn plug(&self, device: UsbDevice) {
        let mut devices = self.devices.lock().unwrap();
        devices.insert(device.busid.clone(), device.clone());
        let _ = self.usb.try_send(Change::Present(device));
    }

    fn unplug(&self, busid: &BusId) {
        if let Some(device) = self.devices.lock().unwrap().remove(busid) {
            let (busid, devid) = (device.busid, device.devid);
            let hung_up = usbipd::Event::HungUp {
                busid: busid.clone(),
                devid,
            };
            let _ = self.usbipd.try_send(hung_up);
            let _ = self.usb.try_send(Change::Gone(busid));
        }
    }

    fn attached(&self) -> Vec<Attachment> {
        let devices = self.devices.lock().unwrap();
        let used = devices
            .values()
            .filter(|d| d.stub == Some(StubStatus::Used));
        used.map(attachment).collect()
    }
}

fn attachment(device: &UsbDevice) -> Attachment {
    Attachment {
        busid: device.busid.clone(),
        devid: device.devid,
        port: 0,
        local_busid: None,
        ttys: vec![Tty {
            node: format!("/dev/ttyUSB{}", device.devid),
            by_id: Some(format!(
                "/dev/serial/by-id/usb-Maker_Board_{}",
                device.devid
            )),
            driver: Some("ftdi_sio".into()),
        }],
        timings: None,
    }
}

impl UsbHost for World {
    fn power_cycle(&self, _: &BusId, _: DevId) -> Result<(), String> {
        Ok(())
    }

    fn announce(&self, _: bool) {}
    fn rescan(&self) {
        let devices = self.devices.lock().unwrap();
        let snapshot = devices.values().cloned().collect();
        let _ = self.usb.try_send(Change::Snapshot(snapshot));
    }

    fn bind(&self, busid: &BusId, devid: DevId) -> Result<(), String> {
        self.change(busid, devid, StubStatus::Available)
    }

    fn rebind(&self, busid: &BusId, devid: DevId) -> Result<(), String> {
        self.change(busid, devid, StubStatus::Available)
    }

    fn unbind(&self, _: &BusId, _: DevId) -> Result<(), String> {
        Ok(())
    }

    fn sweep(&self) {}
}

impl Sessions for World {
    fn give(&self, _: &BusId) {}
    fn end_waiting(&self) {}

    async fn end(&self, busid: BusId, devid: DevId) -> Result<(), String> {
        self.change(&busid, devid, StubStatus::Available)
    }
}

impl VmLink for World {
    fn send(&self, request: Request) -> Result<(), Box<Answer>> {
        let answer = match &request {
            Request::Connect(busid, Some(devid)) => {
                let there = self.change(busid, *devid, StubStatus::Used).is_ok();
                let device = self.devices.lock().unwrap().get(busid).cloned();
                let Some(device) = device.filter(|_| there) else {
                    return Ok(());
                };
                let imported = usbipd::Event::Imported {
                    busid: busid.clone(),
                    devid: *devid,
                    peer: [192, 0, 2, 10].into(),
                };
                let _ = self.usbipd.try_send(imported);
                Answer::Attached(attachment(&device))
            }
            Request::Status => Answer::Status(VmStatus {
                boot_id: "vm".into(),
                attachments: self.attached(),
                ports_free: 8,
                ports_total: 16,
            }),
            Request::Disconnect(..) => Answer::Detached { was_attached: true },
            _ => Answer::Pong {},
        };
        let _ = self.vm.try_send(vm::Event::Reply { request, answer });
        Ok(())
    }

    fn kick(&self) {}
}

fn device(port: u16, devnum: u16) -> UsbDevice {
    let view = sample::device(&format!("1-1.{port}"), "FT232R USB UART");
    UsbDevice {
        devid: DevId::new(1, devnum),
        serial: Some(format!("A5069R{port:02}")),
        stub: None,
        verdict: Verdict::Export("ftdi_sio serial".into()),
        ..view.facts
    }
}

/// Serve until the process is killed; the port is printed.
pub fn run(dir: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(serve(dir));
}

async fn serve(dir: &Path) {
    let store = Store::open(&dir.join("history.db")).await;
    let access = access::Config {
        password: dir.join("password"),
        reset: dir.join("reset-password"),
        uptime: || Duration::ZERO,
        ..access::Config::default()
    };
    let access = Access::open(access, store.clone()).await;
    let (usb, usb_changes) = mpsc::channel(256);
    let (vm, vm_events) = mpsc::channel(256);
    let (usbipd, usbipd_events) = mpsc::channel(256);
    let world = World {
        devices: Arc::default(),
        usb,
        vm,
        usbipd,
    };
    let grace = Duration::from_secs(30);
    let (exports, _exported) = watch::channel(Exports {
        peers: [].into(),
        devices: [].into(),
        fresh: [].into(),
        grace,
    });
    let (_graces, grace) = watch::channel(grace);
    let parts = (world.clone(), world.clone(), world.clone(), store.clone());
    let (manager, handle) = Manager::new(parts, (store.recall(), store.recall_kept()), exports);
    tokio::spawn(manager.run(Inputs {
        usb: usb_changes,
        usbipd: usbipd_events,
        vm: vm_events,
        grace,
    }));
    let pairing = Pairing {
        host: "build-vm.local".into(),
        user: "dev".into(),
    };
    let hello = VmHello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").into(),
        boot_id: "vm".into(),
        host_name: "build-vm".into(),
        address: None,
        capabilities: Vec::new(),
    };
    let address = [192, 0, 2, 10].into();
    world
        .vm
        .send(vm::Event::Paired(Some(pairing)))
        .await
        .unwrap();
    world
        .vm
        .send(vm::Event::Up { hello, address })
        .await
        .unwrap();
    for port in 1..=DEVICES {
        world.plug(device(port, port + 1));
    }
    let flapping = world.clone();
    tokio::spawn(async move {
        let mut devnums = (100..u16::MAX).cycle();
        let mut every = tokio::time::interval(FLAP);
        loop {
            every.tick().await;
            let flap = device(DEVICES + 1, devnums.next().unwrap_or_default());
            let busid = flap.busid.clone();
            flapping.plug(flap);
            every.tick().await;
            flapping.unplug(&busid);
        }
    });

    let (started, alive) = (handle.started(), handle.clone());
    let notices = store.clone();
    let pi = PiHello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").into(),
        boot_id: String::new(),
        grace_seconds: 30,
        gives_next: false,
    };
    let context = Context {
        view: handle.view,
        commands: handle.commands,
        pairer: Pairer::new(Config::new(pi), Arc::new(|| {})),
        access,
        started,
        alive: Arc::new(move || alive.is_alive()),
        notices: Arc::new(move || notices.notices()),
        history: store,
        log: appliance::system::KernelLog::default(),
        names: Vec::new(),
        joins: Joins::default(),
        packages: Packages::new(dir.join("packages")),
    };
    let portal = Portal::bind(([127, 0, 0, 1], 0).into(), context).unwrap();
    println!("{}", portal.address().port());
    portal.run(std::future::pending()).await.unwrap();
}
