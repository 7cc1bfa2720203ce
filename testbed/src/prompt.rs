//! The interactive session behind `make run`: a few words to plug, cut, kill and look.
//!
//! Made for a person at a terminal and for a pipe alike: every answer is plain lines, an error never ends the
//! session, the end of the input does.

use std::io::{self, BufRead, Write};
use std::str::FromStr;
use std::time::Duration;

use crate::machine::{self, Machine, Role};
use crate::pair::Pair;
use crate::usb::{self, What};

/// A command typed into a guest's shell may take this long.
const SHELL_LIMIT: Duration = Duration::from_mins(5);

const HELP: &str = "\
plug KIND [PORT] [SERIAL]  plug a device into the Pi, e.g. 'plug esp32-s3' or 'plug cp2102 3 0042'
unplug N                   pull device N out
devices                    what is plugged in
tty                        the VM's ttys and their by-id links
reboot pi|vm               reboot in good order
kill pi|vm                 cut the power
start pi|vm                switch on again after 'kill'
cut, uncut                 pull the Pi's network cable, plug it in again
log pi|vm                  the end of the kernel's log and, on the VM, of the journal
shell pi|vm [COMMAND]      run one command, or every line until 'exit'
help                       this
quit                       stop both machines";

/// One line of input, understood.
#[derive(Debug, PartialEq)]
enum Command {
    Nothing,
    Plug {
        what: What,
        port: Option<String>,
        serial: Option<String>,
    },
    Unplug(u32),
    Devices,
    Tty,
    Reboot(Role),
    Kill(Role),
    Start(Role),
    Cut,
    Uncut,
    Log(Role),
    Shell(Role, Option<String>),
    Help,
    Quit,
}

/// Why a line is not a command.
#[derive(Debug, thiserror::Error)]
enum Misread {
    #[error("there is no command '{0}': try 'help'")]
    Unknown(String),
    #[error("'{0}' needs {1}")]
    Needs(String, &'static str),
    #[error(transparent)]
    Kind(#[from] usb::Error),
}

impl FromStr for Command {
    type Err = Misread;

    fn from_str(line: &str) -> Result<Self, Misread> {
        let mut words = line.split_whitespace();
        let Some(verb) = words.next() else {
            return Ok(Self::Nothing);
        };
        let first = words.next();
        let machine = || match first {
            Some("pi") => Ok(Role::Pi),
            Some("vm") => Ok(Role::Vm),
            _ => Err(Misread::Needs(verb.to_owned(), "'pi' or 'vm'")),
        };
        Ok(match verb {
            "plug" => Self::Plug {
                what: first
                    .ok_or(Misread::Needs(verb.to_owned(), "the kind of device"))?
                    .parse()?,
                port: words.next().map(str::to_owned),
                serial: words.next().map(str::to_owned),
            },
            "unplug" => {
                let number = first.and_then(|word| word.parse().ok());
                Self::Unplug(number.ok_or(Misread::Needs(verb.to_owned(), "a device's number"))?)
            }
            "devices" => Self::Devices,
            "tty" | "ttys" => Self::Tty,
            "reboot" => Self::Reboot(machine()?),
            "kill" => Self::Kill(machine()?),
            "start" => Self::Start(machine()?),
            "cut" => Self::Cut,
            "uncut" => Self::Uncut,
            "log" => Self::Log(machine()?),
            "shell" => {
                let machine = machine()?;
                let command = words.collect::<Vec<_>>().join(" ");
                Self::Shell(machine, Some(command).filter(|command| !command.is_empty()))
            }
            "help" | "?" => Self::Help,
            "quit" | "exit" => Self::Quit,
            other => return Err(Misread::Unknown(other.to_owned())),
        })
    }
}

/// Reads commands from `input` until its end or `quit`, and writes what comes of them to `output`.
pub fn run(pair: &Pair, mut input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    // Lines go to this machine's shell.
    let mut shell: Option<Role> = None;
    loop {
        match shell {
            Some(role) => write!(output, "{role}# ")?,
            None => write!(output, "> ")?,
        }
        output.flush()?;
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line)? == 0 {
            writeln!(output)?;
            return Ok(());
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim();
        if let Some(role) = shell {
            if line == "exit" {
                shell = None;
            } else if !line.is_empty() {
                report(&mut output, in_shell(pair.machine(role), line))?;
            }
            continue;
        }
        match line.parse() {
            Ok(Command::Quit) => return Ok(()),
            Ok(Command::Shell(role, None)) => {
                writeln!(
                    output,
                    "each line runs by itself on {role}; 'exit' leads back"
                )?;
                shell = Some(role);
            }
            Ok(command) => {
                if let Some(wait) = announce(&command) {
                    writeln!(output, "{wait}")?;
                    output.flush()?;
                }
                report(&mut output, obey(pair, command))?;
            }
            Err(misread) => writeln!(output, "error: {misread}")?,
        }
    }
}

/// What a command that takes a while waits for.
fn announce(command: &Command) -> Option<String> {
    match command {
        Command::Reboot(role) => Some(format!(
            "rebooting {role}, waiting until it is back (about 30 s)"
        )),
        Command::Start(role) => Some(format!(
            "starting {role}, waiting until it is up (about 20 s)"
        )),
        _ => None,
    }
}

fn obey(pair: &Pair, command: Command) -> Result<String, machine::Error> {
    let machine = |role| pair.machine(role);
    Ok(match command {
        Command::Nothing | Command::Quit | Command::Shell(_, None) => String::new(),
        Command::Help => format!("{HELP}\nkinds: {}", usb::names().join(", ")),
        Command::Plug { what, port, serial } => {
            let number = pair.pi.plug(what, port.as_deref(), serial.as_deref())?;
            let plugged = pair.pi.plugged();
            let busid = plugged
                .iter()
                .find(|plugged| plugged.number == number)
                .map(usb::Plugged::busid);
            format!("{number}: {what} at {}", busid.unwrap_or_default())
        }
        Command::Unplug(number) => {
            pair.pi.unplug(number)?;
            format!("{number}: unplugged")
        }
        Command::Devices => {
            let lines: Vec<_> = pair
                .pi
                .plugged()
                .iter()
                .map(|plugged| {
                    format!(
                        "{}: {} at {}",
                        plugged.number,
                        plugged.what,
                        plugged.busid()
                    )
                })
                .collect();
            if lines.is_empty() {
                "nothing is plugged in".to_owned()
            } else {
                lines.join("\n")
            }
        }
        Command::Tty => ttys(&pair.vm)?,
        Command::Reboot(role) => {
            machine(role).reboot()?;
            format!("{role} is back")
        }
        Command::Kill(role) => {
            machine(role).kill();
            format!("{role} is off; 'start {role}' switches it on")
        }
        Command::Start(role) => {
            machine(role).boot()?;
            format!("{role} is up")
        }
        Command::Cut => {
            pair.pi.set_cable(false)?;
            "the cable is out".to_owned()
        }
        Command::Uncut => {
            pair.pi.set_cable(true)?;
            "the cable is in".to_owned()
        }
        Command::Log(Role::Pi) => pair.pi.check("dmesg | tail -n 40")?,
        Command::Log(Role::Vm) => pair
            .vm
            .check("journalctl -q --no-pager -o short-monotonic -n 40")?,
        Command::Shell(role, Some(command)) => in_shell(machine(role), &command)?,
    })
}

fn ttys(vm: &Machine) -> Result<String, machine::Error> {
    let list = "for tty in /dev/ttyUSB* /dev/ttyACM*; do [ -e \"$tty\" ] || continue; echo \"$tty\"; \
        find /dev/serial/by-id -lname \"*/${tty##*/}\" 2>/dev/null | sed 's/^/    /'; done";
    let found = vm.check(list)?;
    Ok(if found.is_empty() {
        "the VM has no ttys".to_owned()
    } else {
        found
    })
}

fn in_shell(machine: &Machine, command: &str) -> Result<String, machine::Error> {
    let output = machine.sh_within(command, SHELL_LIMIT)?;
    let mut text = output.stdout + &output.stderr;
    if output.code != Some(0) {
        let code = output
            .code
            .map_or("killed".to_owned(), |code| format!("exit code {code}"));
        text = format!("{text}({code})");
    }
    Ok(text.trim_end().to_owned())
}

fn report(output: &mut impl Write, result: Result<String, machine::Error>) -> io::Result<()> {
    match result {
        Ok(text) if text.is_empty() => Ok(()),
        Ok(text) => writeln!(output, "{text}"),
        Err(err) => {
            let mut text = format!("error: {err}");
            let mut cause = std::error::Error::source(&err);
            while let Some(source) = cause {
                text = format!("{text}: {source}");
                cause = source.source();
            }
            writeln!(output, "{text}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redir::Kind;

    #[test]
    fn lines_become_commands() {
        let read = |line: &str| line.parse::<Command>().unwrap();
        assert_eq!(
            read("plug esp32-s3"),
            Command::Plug {
                what: What::Played(Kind::Esp32S3),
                port: None,
                serial: None
            }
        );
        assert_eq!(
            read(" plug cp2102 15.2 0042 "),
            Command::Plug {
                what: What::Played(Kind::Cp2102),
                port: Some("15.2".into()),
                serial: Some("0042".into())
            }
        );
        assert_eq!(read("unplug 1"), Command::Unplug(1));
        assert_eq!(
            read("shell vm ls -l /dev"),
            Command::Shell(Role::Vm, Some("ls -l /dev".into()))
        );
        assert_eq!(read(""), Command::Nothing);
    }

    #[test]
    fn a_misread_line_says_what_it_lacks() {
        let misread = |line: &str| line.parse::<Command>().unwrap_err().to_string();
        assert_eq!(misread("reboot"), "'reboot' needs 'pi' or 'vm'");
        assert_eq!(misread("unplug it"), "'unplug' needs a device's number");
        assert!(misread("plug toaster").contains("cp2102"));
        assert!(misread("frobnicate").contains("help"));
    }
}
