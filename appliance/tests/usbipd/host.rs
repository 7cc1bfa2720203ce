//! A host without USB: devices in memory, and a thread in place of each of the kernel's sessions.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    os::fd::BorrowedFd,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use appliance::{
    usb::{StubStatus, UsbDevice, Verdict},
    usbipd::Exporter,
};
use protocol::{BusId, DevId, Speed};

/// usbip-host resets a device before it is available again.
const RESET: Duration = Duration::from_millis(50);

#[derive(Default)]
pub struct Host {
    devices: Mutex<BTreeMap<BusId, Plugged>>,
    /// How long a hand-over takes, and whether the device is replugged meanwhile.
    pub hand_over_takes: Mutex<Duration>,
    pub replugs_at_hand_over: Mutex<bool>,
}

struct Plugged {
    device: UsbDevice,
    socket: Option<TcpStream>,
}

pub fn busid(text: &str) -> BusId {
    text.parse().unwrap()
}

pub fn device(name: &str) -> UsbDevice {
    let (bus, port) = name.split_once('-').unwrap();
    UsbDevice {
        busid: busid(name),
        devid: DevId::new(bus.parse().unwrap(), port.parse::<u16>().unwrap() + 3),
        speed: Speed::Full,
        vendor: 0x10c4,
        product: 0xea60,
        bcd_device: 0x0100,
        class: [0, 0, 0],
        configuration: 1,
        configurations: 1,
        interfaces: vec![[0xff, 0, 0]],
        manufacturer: Some("Silicon Labs".to_owned()),
        product_name: Some("CP2102 USB to UART Bridge Controller".to_owned()),
        serial: Some("0001".to_owned()),
        port_path: format!("platform/usb:{port}"),
        driver: Some("usbip-host".to_owned()),
        stub: Some(StubStatus::Available),
        verdict: Verdict::Export("cp210x serial".to_owned()),
    }
}

impl Host {
    pub fn new(names: &[&str]) -> Arc<Self> {
        let host = Self::default();
        for name in names {
            host.plug(device(name));
        }
        Arc::new(host)
    }

    pub fn plug(&self, device: UsbDevice) {
        let plugged = Plugged {
            device,
            socket: None,
        };
        let busid = plugged.device.busid.clone();
        self.devices.lock().unwrap().insert(busid, plugged);
    }

    pub fn set_status(&self, name: &str, stub: Option<StubStatus>) {
        self.with(&busid(name), |plugged| plugged.device.stub = stub)
            .unwrap();
    }

    /// The kernel's side of a session's socket.
    pub fn socket(&self, name: &str) -> TcpStream {
        self.with(&busid(name), |plugged| {
            plugged.socket.as_ref().unwrap().try_clone().unwrap()
        })
        .unwrap()
    }

    fn with<T>(&self, busid: &BusId, act: impl FnOnce(&mut Plugged) -> T) -> io::Result<T> {
        let mut devices = self.devices.lock().unwrap();
        let plugged = devices.get_mut(busid).ok_or(io::ErrorKind::NotFound)?;
        Ok(act(plugged))
    }
}

/// A `Host` as the server takes it: the kernel's threads need to share it too.
pub struct Kernel(pub Arc<Host>);

impl Exporter for Kernel {
    fn devices(&self) -> io::Result<Vec<UsbDevice>> {
        let devices = self.0.devices.lock().unwrap();
        Ok(devices.values().map(|p| p.device.clone()).collect())
    }

    fn device(&self, busid: &BusId) -> io::Result<Option<UsbDevice>> {
        let devices = self.0.devices.lock().unwrap();
        Ok(devices.get(busid).map(|p| p.device.clone()))
    }

    fn devid(&self, busid: &BusId) -> io::Result<Option<DevId>> {
        Ok(self.device(busid)?.map(|device| device.devid))
    }

    fn stub_status(&self, busid: &BusId) -> io::Result<Option<StubStatus>> {
        Ok(self.device(busid)?.and_then(|device| device.stub))
    }

    fn hand_over(&self, busid: &BusId, socket: BorrowedFd<'_>) -> io::Result<()> {
        thread::sleep(*self.0.hand_over_takes.lock().unwrap());
        let socket = TcpStream::from(socket.try_clone_to_owned()?);
        let of_kernel = socket.try_clone()?;
        let replugs = *self.0.replugs_at_hand_over.lock().unwrap();
        self.0.with(busid, |plugged| {
            if plugged.device.stub != Some(StubStatus::Available) {
                return Err(io::Error::from(io::ErrorKind::InvalidInput));
            }
            if replugs {
                plugged.device.devid.0 += 1;
            }
            plugged.device.stub = Some(StubStatus::Used);
            plugged.socket = Some(socket);
            Ok(())
        })??;
        let (host, busid) = (Arc::clone(&self.0), busid.clone());
        thread::spawn(move || {
            echo(&of_kernel);
            thread::sleep(RESET);
            let _ = host.with(&busid, |plugged| {
                plugged.device.stub = Some(StubStatus::Available);
                plugged.socket = None;
            });
        });
        Ok(())
    }

    fn end_session(&self, busid: &BusId) -> io::Result<()> {
        self.0.with(busid, |plugged| match plugged.socket.take() {
            Some(socket) => socket.shutdown(Shutdown::Both),
            None if plugged.device.stub == Some(StubStatus::Used) => {
                plugged.device.stub = Some(StubStatus::Available);
                Ok(())
            }
            None => Err(io::ErrorKind::InvalidInput.into()),
        })?
    }
}

/// Like the kernel's threads: until the end of the stream, then shut it down in both directions.
fn echo(mut socket: &TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = socket.read(&mut buffer) {
        if socket.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = socket.shutdown(Shutdown::Both);
}
