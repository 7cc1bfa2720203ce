//! USB devices in QEMU, through its control socket.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Error, Plugged, What};
use crate::machine::command::USB_BUS;
use crate::machine::qmp::{self, Qmp};

/// QEMU listens as soon as it has made a chardev.
const CONNECT: Duration = Duration::from_secs(5);

/// Plugs in one of QEMU's own devices; returns the far end of its wire if it has one.
pub(super) fn insert(
    qmp: &mut Qmp,
    dir: &Path,
    plugged: &Plugged,
) -> Result<Option<UnixStream>, Error> {
    let id = id(plugged);
    let backend = backend(plugged);
    let mut device = json!({ "id": id, "bus": USB_BUS, "port": plugged.port });
    let mut wire = None;
    match plugged.what {
        What::Played(_) => return Ok(None),
        What::QemuSerial => {
            let path = listen(qmp, dir, &backend)?;
            wire = Some(connect(&path, &plugged.port)?);
            device["driver"] = "usb-serial".into();
            device["chardev"] = backend.into();
            device["always-plugged"] = true.into();
        }
        What::QemuHub => {
            device["driver"] = "usb-hub".into();
            device["port-power"] = true.into();
        }
        What::QemuKeyboard => device["driver"] = "usb-kbd".into(),
        What::QemuDisk => {
            let node = json!({ "driver": "null-co", "node-name": backend, "size": 1 << 20, "read-zeroes": true });
            qmp.run("blockdev-add", &node)?;
            device["driver"] = "usb-storage".into();
            device["drive"] = backend.into();
        }
        What::QemuNet => {
            qmp.run(
                "netdev_add",
                &json!({ "type": "user", "id": backend, "restrict": true }),
            )?;
            device["driver"] = "usb-net".into();
            device["netdev"] = backend.into();
        }
    }
    if let Some(serial) = &plugged.serial {
        device["serial"] = serial.clone().into();
    }
    if let Err(err) = qmp.run("device_add", &device) {
        // The device is the failure to report; a backend that stays is only untidy.
        let _ = remove_backend(qmp, plugged);
        return Err(err.into());
    }
    Ok(wire)
}

/// Pulls out one of QEMU's own devices.
pub(super) fn remove(qmp: &mut Qmp, plugged: &Plugged) -> Result<(), Error> {
    delete(qmp, &id(plugged))?;
    remove_backend(qmp, plugged)?;
    Ok(())
}

/// Makes the port ready for played devices; returns the path of the socket they are played over.
pub(super) fn insert_socket(qmp: &mut Qmp, dir: &Path, port: &str) -> Result<PathBuf, Error> {
    let id = socket_id(port);
    let path = listen(qmp, dir, &id)?;
    let device = json!({
        "driver": "usb-redir", "id": format!("{id}-device"), "chardev": id, "bus": USB_BUS, "port": port
    });
    qmp.run("device_add", &device)?;
    Ok(path)
}

/// Undoes [`insert_socket`]. QEMU drops the chardev with the device, here as when the device goes with its hub.
pub(super) fn remove_socket(qmp: &mut Qmp, port: &str) -> Result<(), Error> {
    delete(qmp, &format!("{}-device", socket_id(port)))?;
    Ok(())
}

fn delete(qmp: &mut Qmp, id: &str) -> Result<(), qmp::Error> {
    qmp.run("device_del", &json!({ "id": id }))?;
    qmp.wait_event("DEVICE_DELETED", id)
}

fn remove_backend(qmp: &mut Qmp, plugged: &Plugged) -> Result<Value, qmp::Error> {
    let backend = backend(plugged);
    match plugged.what {
        What::QemuSerial => qmp.run("chardev-remove", &json!({ "id": backend })),
        What::QemuDisk => qmp.run("blockdev-del", &json!({ "node-name": backend })),
        What::QemuNet => qmp.run("netdev_del", &json!({ "id": backend })),
        What::Played(_) | What::QemuHub | What::QemuKeyboard => Ok(Value::Null),
    }
}

/// Makes a chardev that listens on a socket in the run's folder, which is QEMU's working folder.
fn listen(qmp: &mut Qmp, dir: &Path, id: &str) -> Result<PathBuf, Error> {
    let name = format!("{id}.usb");
    let path = dir.join(&name);
    // Left by the QEMU before; if there is none, so much the better.
    let _ = fs::remove_file(&path);
    let address = json!({ "type": "unix", "data": { "path": name } });
    let backend =
        json!({ "type": "socket", "data": { "addr": address, "server": true, "wait": false } });
    qmp.run("chardev-add", &json!({ "id": id, "backend": backend }))?;
    Ok(path)
}

fn connect(path: &Path, port: &str) -> Result<UnixStream, Error> {
    let end = Instant::now() + CONNECT;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(_) if Instant::now() < end => thread::sleep(Duration::from_millis(10)),
            Err(source) => {
                return Err(Error::Wire {
                    port: port.to_owned(),
                    source,
                });
            }
        }
    }
}

fn id(plugged: &Plugged) -> String {
    format!("usb{}", plugged.number)
}

fn backend(plugged: &Plugged) -> String {
    format!("{}-backend", id(plugged))
}

fn socket_id(port: &str) -> String {
    format!("port{}", port.replace('.', "-"))
}
