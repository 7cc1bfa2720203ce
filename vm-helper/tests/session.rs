//! Sessions over pipes.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod play;

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixDatagram, UnixStream},
        process::CommandExt,
    },
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use play::{BOOT_ID, Machine, Manners, Pi, busid, device};
use protocol::line::{Answer, FailureKind, MAX_LINE, Reply};
use vm_helper::session::{self, End, Patience};

const PI_BOOT: &str = "22222222-0000-4000-8000-000000000002";

struct Session {
    input: UnixStream,
    output: BufReader<UnixStream>,
    ended: mpsc::Receiver<End>,
}

impl Session {
    fn open(machine: &Machine, pi: &Pi, patience: Patience) -> Self {
        let (input, their_input) = UnixStream::pair().unwrap();
        let (output, their_output) = UnixStream::pair().unwrap();
        output
            .set_read_timeout(Some(Duration::from_mins(1)))
            .unwrap();
        let vm = machine.vm(pi);
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || {
            let end = session::serve(vm, their_input.into(), their_output.into(), patience);
            sender.send(end.unwrap())
        });
        Self {
            input,
            output: BufReader::new(output),
            ended,
        }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    fn hear(&mut self) -> Reply {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn end(self) -> End {
        drop(self.input);
        self.ended.recv_timeout(Duration::from_mins(1)).unwrap()
    }
}

fn hello(boot: &str) -> String {
    format!("hello protocol=1 version=0.1.0 boot={boot} grace=30")
}

#[test]
fn a_session_greets_attaches_and_ends_without_detaching() {
    let machine = Machine::new();
    let pi = Pi::with(vec![device("1-1.1", 4)]);
    let mut session = Session::open(&machine, &pi, Patience::default());
    let first = session.hear();
    assert_eq!(first.re, None);
    let Answer::Hello(vm) = first.answer else {
        panic!("{first:?}");
    };
    assert_eq!(
        (vm.boot_id.as_str(), vm.host_name.as_str()),
        (BOOT_ID, "vm")
    );
    assert_eq!(vm.address, Some([127, 0, 0, 1].into()));

    session.say(&format!("{} next=yes", hello(PI_BOOT)));
    assert!(matches!(session.hear().answer, Answer::Welcome { cleared } if cleared.is_empty()));
    pi.next();
    session.say("connect 1-1.1 00010004");
    let attached = session.hear();
    assert_eq!(attached.re.as_deref(), Some("connect 1-1.1 00010004"));
    assert!(matches!(attached.answer, Answer::Attached(a) if a.timings.is_some()));
    let settled = session.hear();
    assert_eq!(settled.re, None);
    assert!(matches!(settled.answer, Answer::Settled(a) if a.busid == busid("1-1.1")));
    session.say("status");
    assert!(matches!(session.hear().answer, Answer::Status(s) if s.attachments.len() == 1));
    assert_eq!(session.end(), End::Closed);
    assert_eq!(machine.attached().len(), 1);

    // The Pi comes back under another boot id: what it had before is cleared.
    let mut session = Session::open(&machine, &pi, Patience::default());
    session.hear();
    session.say(&hello("33333333-0000-4000-8000-000000000003"));
    assert!(
        matches!(session.hear().answer, Answer::Welcome { cleared } if cleared == [busid("1-1.1")])
    );
    assert_eq!(machine.attached(), []);
}

#[test]
fn a_ping_is_answered_while_an_import_hangs() {
    let machine = Machine::new();
    let pi = Pi::with(vec![device("1-1.1", 4)]);
    *pi.manners.lock().unwrap() = Manners::Hang;
    let mut session = Session::open(&machine, &pi, Patience::default());
    session.hear();
    session.say("connect 1-1.1");
    session.say("ping");
    let pong = session.hear();
    assert_eq!(pong.re.as_deref(), Some("ping"));
    assert_eq!(pong.answer, Answer::Pong {});
}

#[test]
fn nonsense_gets_an_error_and_the_session_goes_on() {
    let machine = Machine::new();
    let pi = Pi::with(Vec::new());
    let mut session = Session::open(&machine, &pi, Patience::default());
    session.hear();
    for line in [
        "",
        "\u{0}\u{7f}{}",
        "connect",
        "connect 1-1 x",
        &"x".repeat(MAX_LINE + 1),
    ] {
        session.say(line);
        let reply = session.hear();
        assert!(
            matches!(reply.answer, Answer::Error(ref f) if f.kind == FailureKind::BadRequest),
            "{reply:?}"
        );
    }
    session.input.write_all(b"\xff\xfe\n").unwrap();
    assert!(matches!(session.hear().answer, Answer::Error(_)));
    session.say("ping");
    assert_eq!(session.hear().answer, Answer::Pong {});
    assert_eq!(session.end(), End::Closed);
}

#[test]
fn silence_is_written_down_and_then_ends_the_session() {
    let machine = Machine::new();
    let pi = Pi::with(Vec::new());
    let socket = machine.root.path("/dev/log");
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let log = UnixDatagram::bind(socket).unwrap();
    log.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let logged = |expected: &str| {
        let mut line = [0; 512];
        let count = log.recv(&mut line).unwrap();
        let line = String::from_utf8_lossy(&line[..count]);
        assert!(line.starts_with("<28>usb-event-handler["), "{line}");
        assert!(line.contains(expected), "{line}");
    };
    let patience = Patience {
        silent_after: Duration::from_millis(50),
        gone_after: Duration::from_millis(400),
    };
    let mut session = Session::open(&machine, &pi, patience);
    session.hear();
    let state = |expected: &str| {
        while !machine
            .read("/run/usbip-vm/pi")
            .is_some_and(|text| text.contains(expected))
        {
            thread::sleep(Duration::from_millis(1));
        }
    };
    state("silent");
    logged("the Pi does not answer");
    session.say("ping");
    session.hear();
    logged("the Pi answers again");
    state("silent");
    logged("the Pi does not answer");
    let end = session.ended.recv_timeout(Duration::from_mins(1)).unwrap();
    assert_eq!(end, End::Silence);
    state("gone");
    logged("its session ends");
    drop(session.input);
}

/// Run the binary as sshd does for the Pi: not as root, with what the Pi asked for.
fn forced(original: &str) -> (Option<i32>, Reply) {
    const NOBODY: u32 = 65534;
    let dir = tempfile::tempdir().unwrap();
    let binary = dir.path().join("usb-event-handler");
    fs::copy(env!("CARGO_BIN_EXE_vm-helper"), &binary).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(binary);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
        .env("SSH_ORIGINAL_COMMAND", original)
        .env("USER", "dev")
        .stdin(Stdio::null());
    let begin = Instant::now();
    let output = loop {
        match command.output() {
            // A process that another test starts at this moment has the copy open until it runs its own program.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                assert!(begin.elapsed() < Duration::from_mins(1), "{error}");
                thread::sleep(Duration::from_millis(10));
            }
            output => break output.unwrap(),
        }
    };
    let reply = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code(), reply)
}

#[test]
fn a_forced_command_of_another_kind_is_refused_in_the_pis_language() {
    for original in ["sh -c reboot", "connect 1-1; reboot", ""] {
        let (code, reply) = forced(original);
        assert_eq!(code, Some(2));
        assert!(
            matches!(reply.answer, Answer::Error(ref f) if f.kind == FailureKind::BadRequest),
            "{reply:?}"
        );
    }
}

#[test]
fn sudos_refusal_is_told_in_the_pis_language() {
    for original in ["session", "usb-event-handler connect 1-1.1"] {
        let (code, reply) = forced(original);
        assert_eq!(code, Some(1));
        let Answer::Error(failure) = reply.answer else {
            panic!("{reply:?}");
        };
        assert_eq!(failure.kind, FailureKind::NotPermitted);
        assert!(failure.remedy.unwrap().contains("/etc/sudoers.d/usbip"));
    }
}

#[test]
fn a_session_ends_when_pi_conf_comes_to_name_another_pi_or_other_ports() {
    let same = "DEFAULT_PI_HOST=127.0.0.1\n";
    for changed in [
        "DEFAULT_PI_HOST=192.0.2.9\n",
        "DEFAULT_PI_HOST=127.0.0.1\nFAST_ENUMERATION=no\n",
    ] {
        let machine = Machine::new();
        let pi = Pi::with(vec![device("1-1.1", 4)]);
        let conf = machine.root.path("/etc/usbip/pi.conf");
        let mut session = Session::open(&machine, &pi, Patience::default());
        session.hear();
        session.say("connect 1-1.1");
        assert!(matches!(session.hear().answer, Answer::Attached(_)));
        session.hear();
        for harmless in [same, "DEFAULT_PI_HOST=two words\n", ""] {
            fs::write(&conf, harmless).unwrap();
            session.say("ping");
            assert!(matches!(session.hear().answer, Answer::Pong {}));
        }
        fs::write(&conf, changed).unwrap();
        session.say("ping");
        let end = session.ended.recv_timeout(Duration::from_mins(1)).unwrap();
        assert_eq!(end, End::Outdated);
        assert_eq!(machine.attached().len(), 1);
    }
}

#[test]
fn the_name_that_sudo_allows_takes_nothing_but_requests() {
    for words in [
        &["join", "http://127.0.0.1:9/join/x", "--replace"][..],
        &["list"],
        &["links"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_vm-helper"))
            .arg0("/usr/bin/usb-event-handler")
            .args(words)
            .env_remove("SSH_ORIGINAL_COMMAND")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}");
    }
}
