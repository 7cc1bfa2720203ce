//! The least that can stand between a plug and a tty: both ends of a channel that is open already, no program
//! started, no reply waited for. The benchmark compares the product with it.
//!
//! `testbed-agent floor-pi` binds every device that is plugged in to usbip-host and says so on the channel;
//! `testbed-agent floor-vm` connects back and both ends give their socket to the kernel. What they do is
//! written to the kernel's log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with,
};

/// For the channel and the devices' sockets.
const PORT: u16 = 3241;
/// Group of the kernel's own uevents (lib/kobject_uevent.c); udevd's are in another.
const KERNEL_GROUP: u32 = 1;
/// A uevent is at most 2 KiB of variables (include/linux/kobject.h).
const UEVENT: usize = 8192;
/// Where the kernel has its USB drivers.
const DRIVERS: &str = "/sys/bus/usb/drivers";
/// The importer's first controller.
const VHCI: &str = "/sys/devices/platform/vhci_hcd.0";

/// The Pi's end. Ends when the channel does.
pub fn pi() -> io::Result<()> {
    let uevents = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::KOBJECT_UEVENT),
    )?;
    bind(&uevents, &netlink::SocketAddrNetlink::new(0, KERNEL_GROUP))?;
    let listener = TcpListener::bind(("0.0.0.0", PORT))?;
    let (mut channel, _) = listener.accept()?;
    channel.set_nodelay(true)?;
    let mut log = kernel_log()?;
    let mut buffer = [0; UEVENT];
    loop {
        let (size, _) = recv(&uevents, &mut buffer[..], RecvFlags::empty())?;
        let Some(device) = bound_device(&buffer[..size]) else {
            continue;
        };
        log.write_all(b"<6>floor: noticed")?;
        let busid = device.file_name().unwrap_or_default().to_string_lossy();
        let drivers = Path::new(DRIVERS);
        fs::write(
            drivers.join("usbip-host/match_busid"),
            format!("add {busid}"),
        )?;
        fs::write(drivers.join("usb/unbind"), busid.as_bytes())?;
        fs::write(drivers.join("usbip-host/bind"), busid.as_bytes())?;
        let devid = number(&device, "busnum")? << 16 | number(&device, "devnum")?;
        let speed = match attribute(&device, "speed")?.as_str() {
            "1.5" => 1,
            "12" => 2,
            "480" => 3,
            _ => 5,
        };
        channel.write_all(format!("{devid} {speed}\n").as_bytes())?;
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        fs::write(
            device.join("usbip_sockfd"),
            socket.as_raw_fd().to_string().as_bytes(),
        )?;
    }
}

/// The VM's end. Ends when the channel does.
pub fn vm(pi: &str) -> io::Result<()> {
    let channel = TcpStream::connect((pi, PORT))?;
    let mut log = kernel_log()?;
    for line in BufReader::new(channel).lines() {
        let line = line?;
        log.write_all(b"<6>floor: told")?;
        let socket = TcpStream::connect((pi, PORT))?;
        socket.set_nodelay(true)?;
        let status = fs::read_to_string(Path::new(VHCI).join("status"))?;
        let port = free_port(&status)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no free vhci port"))?;
        let (devid, speed) = line
            .split_once(' ')
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no devid and speed"))?;
        let socket = socket.as_raw_fd();
        fs::write(
            Path::new(VHCI).join("attach"),
            format!("{port} {socket} {devid} {speed}"),
        )?;
    }
    Ok(())
}

fn kernel_log() -> io::Result<File> {
    OpenOptions::new().write(true).open("/dev/kmsg")
}

fn attribute(device: &Path, name: &str) -> io::Result<String> {
    Ok(fs::read_to_string(device.join(name))?.trim().to_owned())
}

fn number(device: &Path, name: &str) -> io::Result<u32> {
    attribute(device, name)?.parse().map_err(io::Error::other)
}

/// The device that the generic driver has just taken: `bind`, since at `add` it has none yet and cannot be unbound.
fn bound_device(uevent: &[u8]) -> Option<PathBuf> {
    let mut fields = uevent.split(|byte| *byte == 0);
    let path = fields.next()?.strip_prefix(b"bind@/")?;
    let fields: Vec<_> = fields.collect();
    let of_device = fields.contains(&&b"DEVTYPE=usb_device"[..]);
    let generic = fields.contains(&&b"DRIVER=usb"[..]);
    (of_device && generic).then(|| Path::new("/sys").join(String::from_utf8_lossy(path).as_ref()))
}

/// The first port for full and high speed in state 4, which is free.
fn free_port(status: &str) -> Option<&str> {
    status.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let port = words.next().filter(|hub| *hub == "hs").and(words.next())?;
        words.next().filter(|state| *state == "004").and(Some(port))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_device_that_its_driver_has_taken_counts() {
        let event = |action: &str, kind: &str, driver: &str| {
            let text = format!(
                "{action}@/devices/pci/usb1/1-3\0ACTION={action}\0DEVTYPE={kind}\0DRIVER={driver}\0"
            );
            bound_device(text.as_bytes())
        };
        assert_eq!(
            event("bind", "usb_device", "usb").unwrap(),
            Path::new("/sys/devices/pci/usb1/1-3")
        );
        assert_eq!(event("add", "usb_device", "usb"), None);
        assert_eq!(event("bind", "usb_device", "usbip-host"), None);
        assert_eq!(event("bind", "usb_interface", "usb"), None);
    }

    #[test]
    fn the_first_free_port_of_the_right_hub_is_found() {
        let status = "hub port sta spd dev      sockfd local_busid\n\
            hs  0000 006 002 00010004 000003 1-1\n\
            hs  0001 004 000 00000000 000000 0-0\n\
            ss  0008 004 000 00000000 000000 0-0\n";
        assert_eq!(free_port(status), Some("0001"));
        assert_eq!(free_port("ss  0008 004 000 00000000 000000 0-0"), None);
    }
}
