use std::{collections::HashSet, fs::File, net::TcpListener, os::fd::AsFd, sync::Arc};

use rustix::io::Errno;

use super::{
    super::tree::{Tree, UsbDescription},
    *,
};

/// States of a slot (drivers/usb/usbip/stub.h), less OTHER, which frees it at once here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SlotState {
    Added,
    Alloc,
    Removed,
}

#[derive(Debug, Clone)]
struct Slot {
    busid: BusId,
    state: SlotState,
    /// Nodes of the last bound device and its hub: what `rebind` goes through.
    nodes: Vec<PathBuf>,
}

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    /// Files whose next writes fail.
    broken: HashSet<&'static str>,
    /// What would have crashed the kernel.
    crashes: Vec<String>,
    writes: Vec<String>,
}

/// usbip-host as in Linux 6.12, on a tree.
struct FakeKernel {
    tree: Tree,
    state: Mutex<State>,
}

impl FakeKernel {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn driver_of(&self, busid: &BusId) -> Option<String> {
        self.tree.sysfs().device(busid)?.driver
    }

    fn unplug(&self, busid: &BusId) {
        let mut state = self.state();
        if self.driver_of(busid).as_deref() == Some(USBIP_HOST) {
            match state.slots.iter_mut().find(|slot| slot.busid == *busid) {
                Some(slot) if slot.state == SlotState::Alloc => slot.state = SlotState::Added,
                Some(_) => {}
                None => state
                    .crashes
                    .push(format!("{busid} unplugged without a slot")),
            }
        }
        drop(state);
        self.tree.unplug(busid);
    }

    fn table(&self) -> Vec<String> {
        let slots = &self.state().slots;
        slots.iter().map(|slot| slot.busid.to_string()).collect()
    }

    fn show_table(&self, state: &State) {
        let names: Vec<_> = state.slots.iter().map(|s| s.busid.as_str()).collect();
        let path = self.tree.sysfs().driver(USBIP_HOST).join("match_busid");
        fs::write(path, names.join(" ") + " \n").unwrap();
    }

    fn nodes(&self, busid: &BusId) -> Vec<PathBuf> {
        let devid = self.tree.sysfs().devid(busid).unwrap();
        [devid.devnum(), 1]
            .map(|number| format!("{:03}/{number:03}", devid.busnum()))
            .map(|node| self.tree.nodes().join(node))
            .into()
    }

    fn driver_write(
        &self,
        state: &mut State,
        driver: &str,
        file: &str,
        value: &str,
    ) -> io::Result<()> {
        let nodev = || io::Error::from(Errno::NODEV);
        let busid: BusId = value.rsplit(' ').next().unwrap().parse().unwrap();
        let now = self.driver_of(&busid);
        let at = state.slots.iter().position(|slot| slot.busid == busid);
        match (driver, file) {
            (_, "unbind") => {
                if now.as_deref() != Some(driver) {
                    return Err(nodev());
                }
                if self.tree.sysfs().stub_status(&busid) == Some(StubStatus::Used) {
                    state.crashes.push(format!("{busid} unbound in use"));
                }
                if let Some(at) = at.filter(|at| state.slots[*at].state == SlotState::Alloc) {
                    state.slots[at].state = SlotState::Added;
                }
                self.tree.set_driver(&busid, None);
            }
            ("usb", "bind") => {
                if now.is_some() || self.tree.sysfs().devid(&busid).is_none() {
                    return Err(nodev());
                }
                self.tree.set_driver(&busid, Some("usb"));
            }
            (_, "bind") => {
                let usable = [SlotState::Added, SlotState::Alloc];
                let at = at.filter(|at| usable.contains(&state.slots[*at].state));
                let (None, Some(at)) = (now, at) else {
                    return Err(nodev());
                };
                state.slots[at].state = SlotState::Alloc;
                state.slots[at].nodes = self.nodes(&busid);
                self.tree.set_driver(&busid, Some(USBIP_HOST));
            }
            (_, "match_busid") if value.starts_with("add ") => {
                if at.is_none() && state.slots.len() == SLOTS {
                    return Err(Errno::NOMEM.into());
                }
                if at.is_none() {
                    state.slots.push(Slot {
                        busid,
                        state: SlotState::Added,
                        nodes: Vec::new(),
                    });
                }
            }
            (_, "match_busid") => {
                let at = at.ok_or_else(nodev)?;
                match state.slots[at].state {
                    SlotState::Added => {}
                    SlotState::Alloc | SlotState::Removed => {
                        state.slots[at].state = SlotState::Removed;
                    }
                }
            }
            (_, "rebind") => {
                let slot = state.slots.remove(at.ok_or_else(nodev)?);
                let present = self.tree.sysfs().devid(&busid).is_some();
                if slot.nodes.is_empty() || !(present || slot.nodes.iter().all(|n| is_open(n))) {
                    state.crashes.push(format!("{busid} rebound after free"));
                }
                if present && now.is_none() {
                    self.tree.set_driver(&busid, Some("usb"));
                }
            }
            _ => panic!("{driver}/{file}"),
        }
        self.show_table(state);
        Ok(())
    }

    fn socket_write(&self, path: &Path, value: &str) -> io::Result<()> {
        let busid: BusId = (path
            .parent()
            .unwrap()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap())
        .parse()
        .unwrap();
        let status = self.tree.sysfs().stub_status(&busid);
        let next = match (status, value) {
            (Some(StubStatus::Used), "-1") => "1\n",
            (Some(StubStatus::Available), fd) if fd.parse::<u32>().is_ok() => "2\n",
            _ => return Err(Errno::INVAL.into()),
        };
        self.tree.write(&busid, "usbip_status", next.as_bytes());
        Ok(())
    }
}

/// Whether this process has the file open, removed or not.
fn is_open(path: &Path) -> bool {
    let wanted = path.to_string_lossy();
    fs::read_dir("/proc/self/fd").unwrap().flatten().any(|fd| {
        fs::read_link(fd.path()).is_ok_and(|target| target.to_string_lossy().starts_with(&*wanted))
    })
}

struct Writes(Arc<FakeKernel>);

impl Attributes for Writes {
    fn write(&self, path: &Path, value: &str) -> io::Result<()> {
        let parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).collect();
        let [.., driver, file] = parts[..] else {
            panic!("{path:?}")
        };
        if file == "usbip_sockfd" {
            return self.0.socket_write(path, value);
        }
        let mut state = self.0.state();
        state.writes.push(format!("{driver}/{file} {value}"));
        if state.broken.contains(&*format!("{driver}/{file}")) {
            return Err(Errno::IO.into());
        }
        self.0.driver_write(&mut state, driver, file, value)
    }
}

fn fake() -> (Arc<FakeKernel>, Stub) {
    let kernel = Arc::new(FakeKernel {
        tree: Tree::new(),
        state: Mutex::default(),
    });
    let stub = restart(&kernel);
    (kernel, stub)
}

/// The appliance as another process.
fn restart(kernel: &Arc<FakeKernel>) -> Stub {
    Stub::with_attributes(
        kernel.tree.sysfs(),
        kernel.tree.nodes(),
        Box::new(Writes(Arc::clone(kernel))),
    )
}

fn busid(port: u16) -> BusId {
    format!("1-{port}").parse().unwrap()
}

fn plug(kernel: &FakeKernel, port: u16, devnum: u16) -> BusId {
    let busid = busid(port);
    let device = UsbDescription::new(busid.as_str(), 0x10c4, 0xea60).devnum(devnum);
    kernel.tree.plug(&device.interface([0xff, 0, 0]));
    busid
}

fn no_crashes(kernel: &FakeKernel) {
    assert_eq!(kernel.state().crashes, Vec::<String>::new());
}

#[test]
fn a_device_is_bound_and_given_back() {
    let (kernel, stub) = fake();
    let device = plug(&kernel, 1, 2);
    stub.bind(&device).unwrap();
    stub.bind(&device).unwrap();
    assert_eq!(
        stub.sysfs().stub_status(&device),
        Some(StubStatus::Available)
    );
    stub.unbind(&device).unwrap();
    stub.unbind(&device).unwrap();
    assert_eq!(kernel.driver_of(&device).as_deref(), Some("usb"));
    assert_eq!(kernel.table(), Vec::<String>::new());
    no_crashes(&kernel);
}

#[test]
fn a_device_that_took_anothers_place_is_left_alone() {
    let (kernel, stub) = fake();
    let device = plug(&kernel, 1, 3);
    let devid = stub.sysfs().devid(&device).unwrap();
    let earlier = DevId(devid.0 - 1);
    let error = stub.bind_generation(&device, earlier).unwrap_err();
    assert!(matches!(error, StubError::Replugged(_)), "{error:?}");
    assert_eq!(kernel.driver_of(&device).as_deref(), Some("usb"));
    assert_eq!(kernel.table(), Vec::<String>::new());
    stub.bind_generation(&device, devid).unwrap();
    assert_eq!(kernel.driver_of(&device).as_deref(), Some("usbip-host"));
    no_crashes(&kernel);
}

#[test]
fn a_device_without_a_driver_is_bound_too() {
    let (kernel, stub) = fake();
    let device = plug(&kernel, 1, 2);
    kernel.tree.set_driver(&device, None);
    stub.bind(&device).unwrap();
    assert_eq!(kernel.driver_of(&device).as_deref(), Some(USBIP_HOST));
}

#[test]
fn unplugs_do_not_fill_the_table_and_end_no_session() {
    let (kernel, stub) = fake();
    let in_use = plug(&kernel, 100, 100);
    stub.bind(&in_use).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    stub.hand_over(&in_use, listener.as_fd()).unwrap();
    for port in 1..=40 {
        let device = plug(&kernel, port, port + 1);
        stub.bind(&device).unwrap();
        kernel.unplug(&device);
        if port % 3 == 0 {
            stub.sweep();
        }
    }
    stub.sweep();
    assert_eq!(kernel.table(), ["1-100"]);
    assert_eq!(stub.sysfs().stub_status(&in_use), Some(StubStatus::Used));
    no_crashes(&kernel);
}

#[test]
fn a_replug_reuses_the_slot() {
    let (kernel, stub) = fake();
    for devnum in 2..40 {
        let device = plug(&kernel, 1, devnum);
        stub.bind(&device).unwrap();
        kernel.unplug(&device);
    }
    assert_eq!(kernel.table(), ["1-1"]);
    stub.sweep();
    assert_eq!(kernel.table(), Vec::<String>::new());
    no_crashes(&kernel);
}

#[test]
fn devices_bound_by_an_earlier_process_are_swept_as_well() {
    let (kernel, stub) = fake();
    let device = plug(&kernel, 1, 2);
    stub.bind(&device).unwrap();
    drop(stub);
    let stub = restart(&kernel);
    stub.sweep();
    kernel.unplug(&device);
    stub.sweep();
    assert_eq!(kernel.table(), Vec::<String>::new());
    no_crashes(&kernel);
}

#[test]
fn a_slot_lost_between_two_processes_is_left_alone() {
    let (kernel, stub) = fake();
    let device = plug(&kernel, 1, 2);
    stub.bind(&device).unwrap();
    drop(stub);
    kernel.unplug(&device);
    let stub = restart(&kernel);
    stub.sweep();
    assert_eq!(kernel.table(), ["1-1"]);
    no_crashes(&kernel);
    stub.bind(&plug(&kernel, 1, 3)).unwrap();
}

#[test]
fn a_full_table_is_said_and_the_device_left_as_it_was() {
    let (kernel, stub) = fake();
    for port in 1..=17 {
        let device = plug(&kernel, port, port + 1);
        let bound = stub.bind(&device);
        if port <= 16 {
            bound.unwrap();
        } else {
            let error = bound.unwrap_err();
            assert!(matches!(error, StubError::TableFull { .. }), "{error}");
            assert_eq!(kernel.driver_of(&device).as_deref(), Some("usb"));
        }
    }
    kernel.unplug(&busid(5));
    stub.bind(&busid(17)).unwrap();
    no_crashes(&kernel);
}

#[test]
fn a_failed_bind_leaves_the_device_with_the_driver_usb() {
    for broken in ["usbip-host/match_busid", "usb/unbind", "usbip-host/bind"] {
        let (kernel, stub) = fake();
        let device = plug(&kernel, 1, 2);
        kernel.state().broken.insert(broken);
        stub.bind(&device).unwrap_err();
        assert_eq!(
            kernel.driver_of(&device).as_deref(),
            Some("usb"),
            "{broken}"
        );
        kernel.state().broken.clear();
        stub.bind(&device).unwrap();
        kernel.unplug(&device);
        stub.sweep();
        assert_eq!(kernel.table(), Vec::<String>::new(), "{broken}");
        no_crashes(&kernel);
    }
}

#[test]
fn a_device_that_is_not_there_is_not_bound() {
    let (kernel, stub) = fake();
    let error = stub.bind(&busid(1)).unwrap_err();
    assert!(matches!(error, StubError::NotPluggedIn(_)), "{error}");
    assert_eq!(kernel.state().writes, Vec::<String>::new());
    stub.unbind(&busid(1)).unwrap();
    stub.end_session(&busid(1)).unwrap();
}

#[test]
fn a_kernel_without_usbip_host_is_named() {
    let (kernel, stub) = fake();
    let device = plug(&kernel, 1, 2);
    fs::remove_dir(kernel.tree.sysfs().driver(USBIP_HOST)).unwrap();
    let error = stub.bind(&device).unwrap_err();
    assert!(matches!(error, StubError::NoModule), "{error}");
}

#[test]
fn a_session_is_ended_before_the_device_is_unbound() {
    let (kernel, stub) = fake();
    let device = plug(&kernel, 1, 2);
    stub.bind(&device).unwrap();
    let socket = File::open("/dev/null").unwrap();
    stub.hand_over(&device, socket.as_fd()).unwrap();
    let error = stub.hand_over(&device, socket.as_fd()).unwrap_err();
    assert!(matches!(error, StubError::HandOver { .. }), "{error}");
    stub.unbind(&device).unwrap();
    no_crashes(&kernel);
}

#[test]
fn a_broken_device_recovers_by_unbinding_and_binding() {
    let (kernel, stub) = fake();
    let device = plug(&kernel, 1, 2);
    stub.bind(&device).unwrap();
    kernel.tree.write(&device, "usbip_status", b"3\n");
    let error = stub.end_session(&device).unwrap_err();
    assert!(matches!(error, StubError::Broken(_)), "{error}");
    stub.recover(&device).unwrap();
    assert_eq!(
        stub.sysfs().stub_status(&device),
        Some(StubStatus::Available)
    );
    no_crashes(&kernel);
}
