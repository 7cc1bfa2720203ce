//! Plugs emulated devices into a running QEMU by hand.
//!
//! `cargo run -p testbed --example redir_play -- SOCKET` connects to the `usb-redir` device
//! behind that socket and reads commands: `plug KIND [SERIAL]`, `unplug`, `replug`, `bootloader`,
//! `app`, `line N`, `feed TEXT`, `send FILE`, `echo on|off`, `received`, `save FILE`, `flash FILE`,
//! `state`, `log [all]`, `quit`.

use std::fs;
use std::io::{BufRead, stdin};
use std::path::Path;
use std::process::ExitCode;

use testbed::redir::{Device, Error, Event, Kind, Port};

fn main() -> ExitCode {
    let Some(socket) = std::env::args_os().nth(1) else {
        eprintln!("usage: redir_play SOCKET");
        return ExitCode::FAILURE;
    };
    let port = match Port::connect(Path::new(&socket)) {
        Ok(port) => port,
        Err(error) => {
            eprintln!("failed to {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut device = port.device();
    for line in stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words == ["quit"] {
            break;
        }
        match run(&port, &mut device, &words) {
            Ok(answer) => println!("{answer}"),
            Err(error) => println!("failed to {error}"),
        }
    }
    ExitCode::SUCCESS
}

fn run(port: &Port, device: &mut Device, words: &[&str]) -> Result<String, Error> {
    let mut answer = String::from("ok");
    match words {
        [] => {}
        ["plug", name, serial @ ..] => match name.parse::<Kind>() {
            Ok(kind) => *device = port.plug(kind, serial.first().copied())?,
            Err(error) => answer = format!("failed to {error}"),
        },
        ["unplug"] => port.unplug()?,
        ["replug"] => *device = port.replug()?,
        ["bootloader"] => device.reset_to_bootloader()?,
        ["app"] => device.reset_to_app()?,
        ["line", index] => *device = device.line(index.parse().unwrap_or(0)),
        ["feed", text @ ..] => device.feed(text.join(" ").as_bytes())?,
        ["send", file] => match fs::read(file) {
            Ok(bytes) => device.feed(&bytes)?,
            Err(error) => answer = format!("failed to read {file}: {error}"),
        },
        ["echo", on] => device.set_echo(*on == "on"),
        ["received"] => answer = String::from_utf8_lossy(&device.take_received()).into_owned(),
        ["save", file] => answer = save(file, &device.take_received()),
        ["flash", file] => answer = save(file, &device.flash().unwrap_or_default()),
        ["state"] => {
            answer = format!(
                "plugged={} bootloader={} baud={} dtr={} rts={} break={} received={} unread={}",
                device.is_plugged(),
                device.is_bootloader(),
                device.baud(),
                device.dtr(),
                device.rts(),
                device.is_on_break(),
                device.received_len(),
                device.unread()
            );
        }
        ["log"] => answer = log(device, false),
        ["log", "all"] => answer = log(device, true),
        _ => answer = String::from("failed to understand: see the head of this example"),
    }
    Ok(answer)
}

fn log(device: &Device, all: bool) -> String {
    let mut lines = Vec::new();
    for entry in device.log() {
        // Requests that were decoded have an entry of their own.
        if all || !matches!(entry.event, Event::Request { stalled: false, .. }) {
            lines.push(format!("{:9.3} {:?}", entry.at.as_secs_f64(), entry.event));
        }
    }
    lines.join("\n")
}

fn save(file: &str, bytes: &[u8]) -> String {
    match fs::write(file, bytes) {
        Ok(()) => format!("{} bytes", bytes.len()),
        Err(error) => format!("failed to write {file}: {error}"),
    }
}
