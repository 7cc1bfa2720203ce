//! The three names of the binary and their command lines.

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    path::Path,
};

use rustix::fs::Mode;

use protocol::line::{Answer, Attachment, Check, CheckState, Reply, Request};

use crate::{
    attach::Vm,
    boot,
    failure::Error,
    forced::{self, Order},
    handler, join, links,
    presence::Presence,
    root::Root,
    session::{self, Patience},
};

/// Exit code when a request failed.
const FAILED: u8 = 1;
/// Exit code when the command line or pi.conf is wrong.
const MISUSED: u8 = 2;

const HELP: &str = "\
vm-helper: the Pi's USB serial devices on this machine

  vm-helper check               what stands in the way, and what mends it
  vm-helper status              what is attached
  vm-helper list                what the Pi exports
  vm-helper connect BUSID       attach a device, such as 1-1.1
  vm-helper disconnect BUSID    detach it
  vm-helper links               make the links in /dev/usb-pi fit what is attached
  vm-helper join URL            pair with the Pi whose portal shows this address
    --user NAME                 who lets the Pi in
    --replace                   also when this machine is paired with another Pi

  usb-event-handler session     serve the Pi's requests on standard input
  usb-event-handler REQUEST     one of connect, disconnect, status, check, ping
  usb-boot-attach               attach all once the Pi answers

  --json       answer in JSON, as it is done when the output is no terminal
  --version    the version
  --help       this text

The Pi's address is DEFAULT_PI_HOST in /etc/usbip/pi.conf.
Exit code: 0 done, 1 failed, 2 wrong command line or pi.conf.
";

/// Run under the name and words of a command line; the value is the exit code.
pub fn run(mut args: impl Iterator<Item = OsString>) -> u8 {
    let name = args.next().unwrap_or_default();
    let name = Path::new(&name)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        // What is written is for everybody to read, whatever the login's umask, which sudo passes on.
        rustix::process::umask(Mode::from_raw_mode(0o022));
    }
    // The sudo rule is for this name, and nobody is to become more than the Pi's hand by it.
    let is_handler = name == "usb-event-handler";
    let mut args = args.peekable();
    if !is_handler && args.next_if(|word| word == "join").is_some() {
        return join::command::run(args);
    }
    let (words, json) = match parse(args) {
        Ok(parsed) => parsed,
        Err(sentence) => return misuse(&sentence),
    };
    // A root that was given words was called by our unprivileged side, or by a person.
    if let Some(original) = std::env::var_os("SSH_ORIGINAL_COMMAND")
        && (!is_root || words.is_empty())
    {
        return forced_command(&original.to_string_lossy(), is_root);
    }
    let json = json || !io::stdout().is_terminal();
    if let Some(option) = words.first().filter(|word| word.starts_with("--")) {
        return print(if option == "--version" {
            concat!("vm-helper ", env!("CARGO_PKG_VERSION"), "\n")
        } else {
            HELP
        });
    }
    let root = Root::system();
    match (name.as_str(), words.as_slice()) {
        ("usb-boot-attach", []) => boot_attach(&root),
        ("usb-boot-attach", _) => misuse("usb-boot-attach takes no words"),
        (_, []) => misuse("a command is missing"),
        (_, [word]) if !is_handler && word == "list" => list(&root, json),
        (_, [word]) if !is_handler && word == "links" => fit_links(&root),
        (_, words) => match Order::parse(&words.join(" ")) {
            Ok(order) => obey(&root, &order, json, is_root),
            Err(error) => misuse(&error.to_string()),
        },
    }
}

fn parse(args: impl Iterator<Item = OsString>) -> Result<(Vec<String>, bool), String> {
    let mut parser = lexopt::Parser::from_args(args);
    let (mut words, mut json) = (Vec::new(), false);
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            lexopt::Arg::Long("json") => json = true,
            lexopt::Arg::Long(option @ ("help" | "version")) => {
                words.insert(0, format!("--{option}"));
            }
            lexopt::Arg::Short('h') => words.insert(0, "--help".into()),
            lexopt::Arg::Value(word) => words.push(word.to_string_lossy().into_owned()),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok((words, json))
}

/// What the Pi asked sshd for.
fn forced_command(original: &str, is_root: bool) -> u8 {
    let order = match Order::parse(original) {
        Ok(order) => order,
        Err(error) => {
            let error = Error::from(error);
            show(true, None, &Answer::Error(error.failure()));
            return error_code(&error);
        }
    };
    if is_root {
        return obey(&Root::system(), &order, true, true);
    }
    match forced::as_root(&order, true) {
        Ok(status) => exit_code(status.code()),
        // That sudo refuses is one of its findings.
        Err(_) if order == Order::Request(Request::Check) => {
            obey(&Root::system(), &order, true, false)
        }
        Err(error) => fail(true, &order, &error),
    }
}

fn obey(root: &Root, order: &Order, json: bool, is_root: bool) -> u8 {
    // What only looks needs no root.
    let looks = matches!(
        order,
        Order::Request(Request::Status | Request::Ping | Request::Check)
    );
    if !is_root && !looks {
        return match forced::as_root(order, json) {
            Ok(status) => exit_code(status.code()),
            Err(error) => fail(json || *order == Order::Session, order, &error),
        };
    }
    let request = match order {
        Order::Session => return serve(root),
        Order::Request(request) => request,
    };
    if let Request::Check = request {
        // It must work above all where there is no pi.conf yet.
        let checks = crate::check::all(root);
        let bad = checks.iter().any(|check| check.state == CheckState::Failed);
        show(json, Some(request.to_string()), &Answer::Checks(checks));
        return if bad { FAILED } else { 0 };
    }
    let vm = match Vm::load(root) {
        Ok(vm) => vm,
        Err(error) => return fail(json, order, &error),
    };
    let answered = handler::answer(&vm, request);
    let failed = matches!(answered.answer, Answer::Error(_));
    if json || answered.unsettled.is_none() {
        show(json, Some(request.to_string()), &answered.answer);
    }
    if !json && matches!(answered.answer, Answer::Status(_)) {
        show_pi(&vm);
    }
    if let Some((attachment, since)) = answered.unsettled {
        show(json, None, &Answer::Settled(vm.settle(attachment, since)));
    }
    if failed { FAILED } else { 0 }
}

fn serve(root: &Root) -> u8 {
    let order = Order::Session;
    let result = Vm::load(root).and_then(|vm| {
        let own = |stream: Result<_, io::Error>| {
            stream.map_err(|source| Error::Read {
                path: "/dev/stdin".into(),
                source,
            })
        };
        let input = own(io::stdin().as_fd().try_clone_to_owned())?;
        let output = own(io::stdout().as_fd().try_clone_to_owned())?;
        session::serve(vm, input, output, Patience::default())
    });
    match result {
        Ok(_) => 0,
        Err(error) => fail(true, &order, &error),
    }
}

fn boot_attach(root: &Root) -> u8 {
    let outcomes = Vm::load(root).and_then(|vm| boot::attach_all(&vm));
    let outcomes = match outcomes {
        Ok(outcomes) => outcomes,
        Err(Error::Config(crate::config::ConfigError::NoHost)) => {
            // Installed and not paired yet is no failure of the unit.
            eprintln!("not paired with a Pi yet: nothing to attach");
            return 0;
        }
        Err(error) => {
            tell(&error);
            return error_code(&error);
        }
    };
    for (device, result) in &outcomes {
        match result {
            Ok(attachment) => eprintln!("{}", attached_sentence(attachment)),
            Err(error) => {
                eprint!("{}: ", device.busid);
                tell(error);
            }
        }
    }
    eprintln!("done with {} devices", outcomes.len());
    0
}

fn fit_links(root: &Root) -> u8 {
    match Vm::load(root).and_then(|vm| links::refresh(&vm)) {
        Ok(()) => 0,
        Err(error) => {
            tell(&error);
            error_code(&error)
        }
    }
}

fn list(root: &Root, json: bool) -> u8 {
    let devices = Vm::load(root).and_then(|vm| vm.server.open()?.devlist());
    match devices {
        Ok(devices) => {
            let mut text = String::new();
            for device in &devices {
                let product = format!("{:04x}:{:04x}", device.vendor, device.product);
                let line = if json {
                    serde_json::json!({"busid": device.busid, "devid": device.devid, "product": product})
                        .to_string()
                } else {
                    format!("{:<12} {product}", device.busid.as_str())
                };
                text.push_str(&line);
                text.push('\n');
            }
            if devices.is_empty() && !json {
                text = "the Pi exports no devices\n".into();
            }
            print(&text)
        }
        Err(error) => {
            tell(&error);
            error_code(&error)
        }
    }
}

fn misuse(sentence: &str) -> u8 {
    eprintln!("{sentence}\n\n{HELP}");
    MISUSED
}

fn error_code(error: &Error) -> u8 {
    match error {
        Error::Config(_) | Error::Request(_) => MISUSED,
        _ => FAILED,
    }
}

fn exit_code(code: Option<i32>) -> u8 {
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(FAILED)
}

fn fail(json: bool, order: &Order, error: &Error) -> u8 {
    show(
        json,
        Some(order.words().join(" ")),
        &Answer::Error(error.failure()),
    );
    error_code(error)
}

fn tell(error: &Error) {
    eprintln!("{}", error.sentence());
    if let Some(remedy) = error.remedy() {
        eprintln!("  remedy: {remedy}");
    }
}

/// Print; a reader that has gone away misses nothing that it wanted.
fn print(text: &str) -> u8 {
    let _ = io::stdout().write_all(text.as_bytes());
    0
}

fn show(json: bool, re: Option<String>, answer: &Answer) {
    if json {
        let reply = Reply {
            re,
            answer: answer.clone(),
        };
        // Plain data that always has a JSON form.
        print(&(serde_json::to_string(&reply).unwrap_or_default() + "\n"));
        return;
    }
    match answer {
        Answer::Attached(attachment) | Answer::Settled(attachment) => {
            print(&(attached_sentence(attachment) + "\n"));
        }
        Answer::Detached { was_attached: true } => drop(print("detached\n")),
        Answer::Detached { .. } => drop(print("it was not attached\n")),
        Answer::Pong {} => drop(print("here\n")),
        Answer::Checks(checks) => {
            for check in checks {
                print(&check_lines(check));
            }
        }
        Answer::Status(status) => {
            for attachment in &status.attachments {
                print(&(attached_sentence(attachment) + "\n"));
            }
            print(&format!(
                "{} devices attached, {} of {} ports free\n",
                status.attachments.len(),
                status.ports_free,
                status.ports_total
            ));
        }
        Answer::Error(failure) => {
            eprintln!("{}", failure.message);
            if let Some(remedy) = &failure.remedy {
                eprintln!("  remedy: {remedy}");
            }
        }
        Answer::Hello(_) | Answer::Welcome { .. } | Answer::Linked {} => {}
    }
}

fn show_pi(vm: &Vm) {
    let host = &vm.server.host;
    let text = match Presence::load(&vm.root) {
        Some(presence) => format!("the Pi at {host}: {}\n", presence.sentence()),
        None => format!("the Pi at {host} has not opened a session since this machine booted\n"),
    };
    print(&text);
}

fn check_lines(check: &Check) -> String {
    let mark = match check.state {
        CheckState::Ok => "ok     ",
        CheckState::Warning => "warning",
        CheckState::Failed => "FAILED ",
    };
    let mut text = format!("{mark} {}\n", check.finding);
    if let Some(remedy) = &check.remedy {
        text.push_str("        remedy: ");
        text.push_str(remedy);
        text.push('\n');
    }
    text
}

fn attached_sentence(attachment: &Attachment) -> String {
    let ttys: Vec<String> = attachment
        .ttys
        .iter()
        .map(|tty| match &tty.by_id {
            Some(link) => format!("{} ({link})", tty.node),
            None => tty.node.clone(),
        })
        .collect();
    let place = format!(
        "{} is attached on port {}",
        attachment.busid, attachment.port
    );
    if ttys.is_empty() {
        format!("{place}, without a tty yet")
    } else {
        format!("{place} as {}", ttys.join(" and "))
    }
}
