//! A machine and a Pi to play with: a temporary tree whose vhci acts on writes as the kernel does,
//! and a TCP listener that speaks USB/IP.

#![allow(dead_code, reason = "each test file uses its part of it")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::Path,
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use protocol::{
    BusId, DevId, Speed,
    wire::{self, Device, Header, Request, Status},
};
use vm_helper::{attach::Vm, config::PiConf, root::Root};

pub const BOOT_ID: &str = "11111111-0000-4000-8000-000000000001";
pub const VHCI: &str = "/sys/devices/platform/vhci_hcd.0";
const PORTS: u32 = 4;

pub fn busid(text: &str) -> BusId {
    text.parse().unwrap()
}

pub fn device(name: &str, devnum: u16) -> Device {
    Device {
        path: format!("/sys/devices/{name}"),
        busid: busid(name),
        devid: DevId::new(1, devnum),
        speed: Speed::Full,
        vendor: 0x0403,
        product: 0x6001,
        bcd_device: 0x0600,
        class: [0; 3],
        configuration: 1,
        configurations: 1,
        interfaces: vec![[0xff; 3]],
    }
}

/// Ports by number, with the devid of what is attached.
type Ports = Arc<Mutex<BTreeMap<u32, Option<DevId>>>>;

pub struct Machine {
    dir: tempfile::TempDir,
    pub root: Root,
    ports: Ports,
    /// Ports that answer EBUSY although `status` shows them free.
    pub busy: Arc<Mutex<Vec<u32>>>,
    /// Whether devices get a tty.
    pub has_driver: Arc<Mutex<bool>>,
}

impl Machine {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ports: Ports = Arc::new(Mutex::new((0..PORTS).map(|n| (n, None)).collect()));
        let busy: Arc<Mutex<Vec<u32>>> = Arc::default();
        let has_driver = Arc::new(Mutex::new(true));
        let kernel = {
            let (base, ports) = (Root::at(dir.path()), ports.clone());
            let (busy, has_driver) = (busy.clone(), has_driver.clone());
            move |path: &Path, words: &str| {
                let numbers: Vec<u32> =
                    words.split(' ').map(|word| word.parse().unwrap()).collect();
                match path.file_name().unwrap().to_str().unwrap() {
                    "attach" => {
                        let [port, _fd, devid, _speed] = numbers[..] else {
                            return Err(io::ErrorKind::InvalidInput.into());
                        };
                        let devid = DevId(devid);
                        // Whoever comes first has it.
                        let had = ports.lock().unwrap().insert(port, Some(devid)).flatten();
                        if had.is_some() || busy.lock().unwrap().contains(&port) {
                            ports.lock().unwrap().insert(port, had);
                            return Err(io::ErrorKind::ResourceBusy.into());
                        }
                        set(
                            &base,
                            &ports,
                            port,
                            Some(devid),
                            *has_driver.lock().unwrap(),
                        );
                    }
                    "detach" => set(&base, &ports, numbers[0], None, false),
                    other => panic!("write to {other}"),
                }
                Ok(())
            }
        };
        let root = Root::played(dir.path(), kernel);
        for dir in [VHCI, "/proc/sys/kernel/random", "/etc/usbip"] {
            fs::create_dir_all(root.path(dir)).unwrap();
        }
        fs::write(root.path("/proc/sys/kernel/random/boot_id"), BOOT_ID).unwrap();
        fs::write(root.path("/proc/sys/kernel/hostname"), "vm\n").unwrap();
        write_status(&root, &ports);
        Self {
            dir,
            root,
            ports,
            busy,
            has_driver,
        }
    }

    pub fn vm(&self, pi: &Pi) -> Vm {
        let mut vm = Vm::new(
            &self.root,
            &PiConf::parse("DEFAULT_PI_HOST=127.0.0.1").unwrap(),
        );
        vm.server.port = pi.port;
        vm
    }

    /// What another program attached.
    pub fn attach(&self, port: u32, devid: DevId, stock_record: &str) {
        let dir = self.root.path("/var/run/vhci_hcd");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("port{port}")), stock_record).unwrap();
        set(&self.root, &self.ports, port, Some(devid), true);
    }

    /// What hangs on each port.
    pub fn attached(&self) -> Vec<(u32, DevId)> {
        let ports = self.ports.lock().unwrap();
        ports
            .iter()
            .filter_map(|(n, devid)| Some((*n, (*devid)?)))
            .collect()
    }

    pub fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.path(path)).ok()
    }
}

fn set(root: &Root, ports: &Ports, port: u32, devid: Option<DevId>, has_driver: bool) {
    let local = format!("3-{}", port + 1);
    let sysfs = root.path(&format!("/sys/bus/usb/devices/{local}"));
    if devid.is_some() {
        let interface = sysfs.join(format!("{local}:1.0"));
        fs::create_dir_all(&interface).unwrap();
        fs::write(sysfs.join("bNumInterfaces"), " 1\n").unwrap();
        for name in [
            "bInterfaceClass",
            "bInterfaceSubClass",
            "bInterfaceProtocol",
        ] {
            fs::write(interface.join(name), "ff\n").unwrap();
        }
        if has_driver {
            let tty = format!("ttyUSB{port}");
            fs::create_dir_all(interface.join(&tty).join("tty").join(&tty)).unwrap();
            symlink("../drivers/ftdi_sio", interface.join("driver")).unwrap();
        }
    } else {
        fs::remove_dir_all(&sysfs).unwrap();
    }
    ports.lock().unwrap().insert(port, devid);
    write_status(root, ports);
}

fn write_status(root: &Root, ports: &Ports) {
    let mut text = String::from("hub port sta spd dev      sockfd local_busid\n");
    let ports = ports.lock().unwrap();
    for (port, devid) in ports.iter() {
        let line = match devid {
            Some(devid) => format!("hs  {port:04} 006 002 {devid} 000005 3-{}\n", port + 1),
            None => format!("hs  {port:04} 004 000 00000000 000000 0-0\n"),
        };
        text.push_str(&line);
    }
    // In one step: the kernel shows no half of it.
    let (new, path) = (
        root.path(&format!("{VHCI}/new")),
        root.path(&format!("{VHCI}/status")),
    );
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

/// What the Pi does with an import.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    Normal,
    Refuse(Status),
    Hang,
    Close,
}

pub struct Pi {
    pub port: u16,
    pub devices: Arc<Mutex<Vec<Device>>>,
    pub manners: Arc<Mutex<Manners>>,
    /// Every import that was asked for.
    pub imports: Arc<Mutex<Vec<BusId>>>,
    /// Connections on which the next new device is waited for.
    pub waits: Receiver<TcpStream>,
}

impl Pi {
    pub fn with(devices: Vec<Device>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (waiting, waits) = mpsc::channel();
        let pi = Self {
            port: listener.local_addr().unwrap().port(),
            devices: Arc::new(Mutex::new(devices)),
            manners: Arc::new(Mutex::new(Manners::Normal)),
            imports: Arc::default(),
            waits,
        };
        let (devices, manners, imports) =
            (pi.devices.clone(), pi.manners.clone(), pi.imports.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (devices, manners) = (devices.clone(), manners.clone());
                let (imports, waiting) = (imports.clone(), waiting.clone());
                thread::spawn(move || {
                    serve(stream.unwrap(), &devices, &manners, &imports, &waiting);
                });
            }
        });
        pi
    }

    /// The connection on which the next new device is waited for.
    pub fn next(&self) -> TcpStream {
        self.waits.recv_timeout(Duration::from_mins(1)).unwrap()
    }
}

fn serve(
    mut stream: TcpStream,
    devices: &Mutex<Vec<Device>>,
    manners: &Mutex<Manners>,
    imports: &Mutex<Vec<BusId>>,
    waiting: &Sender<TcpStream>,
) {
    let mut header = [0; Header::SIZE];
    if stream.read_exact(&mut header).is_err() {
        return;
    }
    let header = Header::decode(header).unwrap();
    let mut body = vec![0; header.request_body_len().unwrap()];
    stream.read_exact(&mut body).unwrap();
    let devices = devices.lock().unwrap().clone();
    let reply = match Request::decode(header, &body).unwrap() {
        Request::Devlist | Request::DevlistAfterBoot(_) => wire::encode_devlist(&devices),
        Request::Next => {
            waiting.send(stream.try_clone().unwrap()).unwrap();
            Vec::new()
        }
        Request::Import(busid) => {
            imports.lock().unwrap().push(busid.clone());
            let manners = *manners.lock().unwrap();
            let found = devices.iter().find(|device| device.busid == busid);
            match manners {
                Manners::Close => return,
                Manners::Hang => {
                    // Until the other end gives up.
                    let _ = stream.read(&mut [0]);
                    return;
                }
                Manners::Refuse(status) => wire::encode_import(Err(status)),
                Manners::Normal => wire::encode_import(found.ok_or(Status::NoDevice)),
            }
        }
    };
    stream.write_all(&reply).unwrap();
    // The socket stays open as long as the importer keeps its end.
    stream
        .set_read_timeout(Some(Duration::from_mins(1)))
        .unwrap();
    let _ = stream.read(&mut [0]);
}
