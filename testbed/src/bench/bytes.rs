//! Throughput and round trips over our export, the stock one, ser2net, and with the device in the VM itself.

use std::thread;
use std::time::{Duration, Instant};

use super::figures::{Figure, Results, Row, Table};
use super::rig::{Fast, Program, Rig};
use super::{Error, Tty, classic};
use crate::agent::Transfer;
use crate::machine::Role;
use crate::pattern;
use crate::redir::{Device, Kind};

const BAUD: u32 = 921_600;
/// The device's port, on the Pi or on the VM.
const PORT: &str = "2";
const BUSID: &str = "1-2";
/// The only tty of either machine.
const TTY: &str = "/dev/ttyUSB0";
/// Bytes of a small message: a line of a console, a Modbus request.
const MESSAGE: usize = 16;
/// Bytes that are passed before anything is timed.
const WARM: usize = 8 << 10;
/// A transfer that takes longer has stalled.
const LIMIT: Duration = Duration::from_mins(2);
const IDLE_MS: u64 = 20_000;
const SER2NET: &str = "tcp:10.9.0.1:2000";

/// One way from the VM to the device.
struct Way {
    key: &'static str,
    column: &'static str,
    to_device: Vec<f64>,
    from_device: Vec<f64>,
    round_trips: Vec<f64>,
}

/// Measures all ways.
pub(super) fn measure(rig: &Rig<'_>, quick: bool, results: &mut Results) -> Result<(), Error> {
    let (size, times) = if quick { (32 << 10, 1) } else { (256 << 10, 3) };
    let mut ways = Vec::new();
    let mut way = |key, column, path: &str, device: &Device| -> Result<(), Error> {
        rig.say(&format!("bytes, {column}"));
        let tty = rig.vm().open_tty(path, BAUD)?;
        let mut way = Way {
            key,
            column,
            to_device: Vec::new(),
            from_device: Vec::new(),
            round_trips: Vec::new(),
        };
        // The first use finds cold caches.
        to_device(&tty, device, WARM, column)?;
        from_device(&tty, device, WARM, column)?;
        for _ in 0..times {
            way.to_device
                .push(rate(size, to_device(&tty, device, size, column)?));
            way.from_device
                .push(rate(size, from_device(&tty, device, size, column)?));
        }
        device.set_echo(true);
        let seconds = tty.round_trips(MESSAGE, if quick { 20 } else { 200 })?;
        way.round_trips = seconds.into_iter().map(|seconds| seconds * 1e3).collect();
        device.set_echo(false);
        ways.push(way);
        Ok(())
    };
    let (pi, vm) = (rig.pi(), rig.vm());
    let ready = format!("[ -c {TTY} ] && udevadm settle");

    rig.run(Program::Appliance, Fast::DEFAULT)?;
    let number = pi.plug(Kind::Cp2102, Some(PORT), Some("BENCH0002"))?;
    vm.wait_until(&ready)?;
    way("ours", "ours", TTY, &pi.device(number)?)?;
    pi.unplug(number)?;
    vm.wait_until(&format!("! [ -e {TTY} ]"))?;

    rig.run(Program::Nothing, Fast::DEFAULT)?;
    classic::usbipd(rig)?;
    let number = pi.plug(Kind::Cp2102, Some(PORT), Some("BENCH0002"))?;
    let node = format!("/sys/bus/usb/devices/{BUSID}/driver");
    pi.wait_until(&format!("[ \"$(basename $(readlink {node}))\" = usb ]"))?;
    pi.check(&format!("usbip bind -b {BUSID}"))?;
    let address = Role::Pi.address();
    vm.check(&format!("usbip attach -r {address} -b {BUSID}"))?;
    vm.wait_until(&ready)?;
    way("stock", "stock usbip", TTY, &pi.device(number)?)?;
    pi.unplug(number)?;
    vm.wait_until(&format!("! [ -e {TTY} ]"))?;
    classic::stop(rig)?;

    let drivers = Drivers::load(rig)?;
    let number = pi.plug(Kind::Cp2102, Some(PORT), Some("BENCH0002"))?;
    pi.wait_until(&format!("[ -c {TTY} ]"))?;
    let conf = format!(
        "connection: &bench\n  accepter: tcp,2000\n  connector: serialdev,{TTY},{BAUD}n81,local\n"
    );
    pi.put("/run/bench/ser2net.yaml", 0o644, conf.as_bytes())?;
    pi.start(
        "exec ser2net -n -c /run/bench/ser2net.yaml",
        Some("/run/bench/ser2net.log"),
    )?;
    // Port 2000 in hexadecimal, listening.
    pi.wait_until("cat /proc/net/tcp /proc/net/tcp6 | grep -q ':07D0 [0-9A-F:]* 0A '")?;
    way("ser2net", "ser2net", SER2NET, &pi.device(number)?)?;
    pi.check("kill $(pidof ser2net)")?;
    pi.unplug(number)?;
    pi.wait_until(&format!("! [ -e {TTY} ]"))?;
    drivers.unload()?;

    let number = vm.plug(Kind::Cp2102, Some(PORT), Some("BENCH0002"))?;
    vm.wait_until(&ready)?;
    way("direct", "in the VM", TTY, &vm.device(number)?)?;
    vm.unplug(number)?;
    report(&ways, size, results);
    Ok(())
}

fn rate(size: usize, took: Duration) -> f64 {
    // Sizes are far below 2^53.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a size of some 100 KiB is exact"
    )]
    let kib = size as f64 / 1024.0;
    kib / took.as_secs_f64()
}

/// Until the device has the last byte.
fn to_device(
    tty: &Tty<'_>,
    device: &Device,
    size: usize,
    way: &'static str,
) -> Result<Duration, Error> {
    drop(device.take_received());
    let transfer = Transfer {
        seed: 1,
        send: size,
        receive: 0,
        idle_ms: IDLE_MS,
    };
    let begin = Instant::now();
    let took = thread::scope(|scope| {
        let sender = scope.spawn(|| tty.transfer(transfer, LIMIT));
        let arrived = device.wait_until(LIMIT, |device| device.received_len() >= size);
        let took = begin.elapsed();
        let sent = sender.join().map_err(|_| Error::Panicked)??;
        let why = sent
            .failure
            .or((!arrived).then(|| "bytes are missing".to_owned()));
        why.map_or(Ok(took), |why| Err(Error::Bytes { way, why }))
    })?;
    equal(&device.take_received(), &pattern::bytes(1, size), way)?;
    Ok(took)
}

/// Until the reader on the VM has the last byte.
fn from_device(
    tty: &Tty<'_>,
    device: &Device,
    size: usize,
    way: &'static str,
) -> Result<Duration, Error> {
    let data = pattern::bytes(2, size);
    let transfer = Transfer {
        seed: 1,
        send: 0,
        receive: size,
        idle_ms: IDLE_MS,
    };
    let begin = Instant::now();
    device.feed(&data)?;
    let got = tty.transfer(transfer, LIMIT)?;
    let took = begin.elapsed();
    if let Some(why) = got.failure {
        return Err(Error::Bytes { way, why });
    }
    if got.received_sha256 != pattern::sha256(&data) {
        let why = "bytes differ".to_owned();
        return Err(Error::Bytes { way, why });
    }
    Ok(took)
}

fn equal(got: &[u8], sent: &[u8], way: &'static str) -> Result<(), Error> {
    if got == sent {
        return Ok(());
    }
    let why = "bytes differ".to_owned();
    Err(Error::Bytes { way, why })
}

/// The Pi's image has no serial driver on purpose. For ser2net it borrows the VM's, whose kernel is the same.
struct Drivers<'a>(&'a Rig<'a>);

impl<'a> Drivers<'a> {
    fn load(rig: &'a Rig<'a>) -> Result<Self, Error> {
        for name in ["usbserial", "cp210x"] {
            let path = rig.vm().check(&format!("modinfo -n {name}"))?;
            let module = rig.vm().get(&path)?;
            let path = format!("/run/bench/{name}.ko");
            rig.pi().put(&path, 0o644, &module)?;
            rig.pi().check(&format!("insmod {path}"))?;
        }
        Ok(Self(rig))
    }

    fn unload(self) -> Result<(), Error> {
        self.0.pi().check("rmmod cp210x && rmmod usbserial")?;
        Ok(())
    }
}

fn report(ways: &[Way], size: usize, results: &mut Results) {
    let row = |label: String, part: &str, values: fn(&Way) -> &Vec<f64>| Row {
        label,
        cells: ways
            .iter()
            .map(|way| Figure::of(format!("bytes.{}.{part}", way.key), values(way).clone()))
            .collect(),
    };
    let kib = size >> 10;
    results.tables.push(Table {
        title: "Bytes between the VM and a CP2102 (medians)".to_owned(),
        columns: ways.iter().map(|way| way.column.to_owned()).collect(),
        rows: vec![
            row(
                format!("to the device, {kib} KiB, KiB/s"),
                "to_device_kib_per_s",
                |way| &way.to_device,
            ),
            row(
                format!("from the device, {kib} KiB, KiB/s"),
                "from_device_kib_per_s",
                |way| &way.from_device,
            ),
            row(
                format!("round trip of {MESSAGE} bytes, ms"),
                "round_trip_ms",
                |way| &way.round_trips,
            ),
        ],
    });
}
