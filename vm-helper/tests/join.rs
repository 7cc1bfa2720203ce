//! `vm-helper join` against a Pi that is played, on a machine that is a temporary tree.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt, symlink},
    sync::{Arc, Mutex},
    thread,
};

use vm_helper::{
    join::{JoinError, Order, join},
    root::Root,
};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG7bN7fDcDx9zHvt6hSQ/6REJZ4/1oYeAEBWZs6kb/8Y";
const KEYS: &str = "/home/me/.ssh/authorized_keys";
const PI_CONF: &str = "/etc/usbip/pi.conf";

struct Machine {
    _dir: tempfile::TempDir,
    root: Root,
}

impl Machine {
    /// Ready to be paired, with a user of its own.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let put = |path: &str, text: &str| {
            let path = root.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let me = rustix::process::geteuid().as_raw();
        let mine = rustix::process::getegid().as_raw();
        put(
            "/etc/passwd",
            &format!("me:x:{me}:{mine}::/home/me:/bin/sh\n"),
        );
        put("/etc/group", "usbip:x:999:me\n");
        put("/etc/sudoers.d/usbip", "");
        put(
            "/etc/ssh/ssh_host_ed25519_key.pub",
            &format!("{KEY} root@vm\n"),
        );
        put("/etc/ssh/ssh_host_ed25519_key", "secret");
        put("/usr/bin/sudo", "");
        put("/usr/bin/usb-event-handler", "");
        put("/proc/sys/kernel/hostname", "vm\n");
        put(PI_CONF, "# mine\nDEFAULT_PI_HOST=\nGRACE_SECONDS=60\n");
        fs::create_dir_all(root.path("/run/systemd/system")).unwrap();
        fs::create_dir_all(root.path("/home/me")).unwrap();
        Self { _dir: dir, root }
    }

    fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.path(path)).ok()
    }
}

/// Answers requests in this order, and keeps what was asked.
struct Pi {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Pi {
    fn new(answers: &[(u16, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&asked);
        let answers: Vec<_> = answers
            .iter()
            .map(|(status, body)| (*status, (*body).to_owned()))
            .collect();
        thread::spawn(move || {
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                kept.lock().unwrap().push(request(&mut stream));
                let answer = format!("HTTP/1.1 {status} Said\r\nx: y\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        Self { port, asked }
    }

    fn good() -> Self {
        Self::new(&[
            (200, &format!(r#"{{"key":"{KEY} usbip-pi","colour":1}}"#)),
            (
                200,
                r#"{"host":"192.168.1.20","host_keys":["SHA256:a"],"key":"SHA256:b"}"#,
            ),
        ])
    }

    fn order(&self, ssh: &TcpListener) -> Order {
        Order {
            address: format!("http://127.0.0.1:{}/join/token", self.port)
                .parse()
                .unwrap(),
            user: Some("me".into()),
            replace: false,
            ssh_port: ssh.local_addr().unwrap().port(),
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn request(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with("\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        text.push(char::from(byte[0]));
    }
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    text + &String::from_utf8(body).unwrap()
}

fn ssh() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[test]
fn a_machine_is_paired_and_says_what_the_pi_needs() {
    let (machine, pi, ssh) = (Machine::new(), Pi::good(), ssh());
    let pairing = join(&machine.root, &pi.order(&ssh)).unwrap();
    assert_eq!(pairing.user, "me");
    assert_eq!(pairing.joined.host_keys, ["SHA256:a"]);

    let asked = pi.asked();
    assert!(asked[0].starts_with("GET /join/token/invitation HTTP/1.0\r\n"));
    assert!(asked[1].starts_with("POST /join/token HTTP/1.0\r\n"));
    assert!(asked[1].contains(&format!("\r\nOrigin: http://127.0.0.1:{}\r\n", pi.port)));
    let (_, body) = asked[1].split_once("\r\n\r\n").unwrap();
    let report: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(report["user"], "me");
    assert_eq!(report["host_name"], "vm");
    assert_eq!(report["host_keys"], serde_json::json!([KEY]));

    let line = format!("restrict,command=\"/usr/bin/usb-event-handler\" {KEY} usbip-pi\n");
    assert_eq!(machine.text(KEYS).unwrap(), line);
    let mode = |path: &str| {
        let meta = fs::metadata(machine.root.path(path)).unwrap();
        meta.permissions().mode() & 0o777
    };
    assert_eq!((mode(KEYS), mode("/home/me/.ssh")), (0o600, 0o700));
    assert_eq!(
        machine.text(PI_CONF).unwrap(),
        "# mine\nDEFAULT_PI_HOST=127.0.0.1\nGRACE_SECONDS=60\n"
    );

    // Once more, as for an upgrade: nothing is there twice.
    let again = Pi::good();
    join(&machine.root, &again.order(&ssh)).unwrap();
    assert_eq!(machine.text(KEYS).unwrap(), line);
}

#[test]
fn a_refusal_leaves_everything_as_it_was() {
    let machine = Machine::new();
    let refused = r#"{"error":"the token is too old","remedy":"make a new one"}"#;
    let invitation = format!(r#"{{"key":"{KEY}"}}"#);
    let conf = machine.text(PI_CONF);
    let ssh = ssh();
    let pi = Pi::new(&[(200, &invitation), (410, refused)]);
    let error = join(&machine.root, &pi.order(&ssh)).unwrap_err();
    assert_eq!(error.sentence(), "the token is too old");
    assert_eq!(error.remedy().as_deref(), Some("make a new one"));
    assert_eq!(machine.text(PI_CONF), conf);
    assert!(!machine.root.path("/home/me/.ssh").exists());

    // The same where there was a file.
    fs::create_dir(machine.root.path("/home/me/.ssh")).unwrap();
    fs::write(machine.root.path(KEYS), "ssh-rsa AAAA ann\n").unwrap();
    let pi = Pi::new(&[(200, &invitation), (500, "<html>")]);
    let error = join(&machine.root, &pi.order(&ssh)).unwrap_err();
    assert!(error.sentence().contains("it answers 500"), "{error:?}");
    assert_eq!(machine.text(KEYS).unwrap(), "ssh-rsa AAAA ann\n");
    assert_eq!(machine.text(PI_CONF), conf);
}

#[test]
fn what_is_missing_is_told_before_anything_is_changed() {
    type Expected = fn(&JoinError) -> bool;
    let ssh = ssh();
    let cases: [(&str, Expected); 5] = [
        ("/run/systemd/system", |e| matches!(e, JoinError::NoSystemd)),
        ("/usr/bin/sudo", |e| matches!(e, JoinError::NoSudo)),
        ("/etc/sudoers.d/usbip", |e| {
            matches!(e, JoinError::NotInstalled)
        }),
        ("/etc/ssh/ssh_host_ed25519_key.pub", |e| {
            matches!(e, JoinError::NoSshServer)
        }),
        ("/etc/passwd", |e| matches!(e, JoinError::NoUser(_))),
    ];
    for (missing, expected) in cases {
        let machine = Machine::new();
        let path = machine.root.path(missing);
        fs::remove_file(&path)
            .or_else(|_| fs::remove_dir(&path))
            .unwrap();
        let before = machine.text(PI_CONF);
        let error = join(&machine.root, &Pi::good().order(&ssh)).unwrap_err();
        assert!(expected(&error), "{missing}: {error:?}");
        assert!(error.remedy().is_some(), "{missing}");
        assert_eq!(machine.text(PI_CONF), before);
        assert!(!machine.root.path(KEYS).exists());
    }
    // Nothing listens there any more.
    let machine = Machine::new();
    let pi = Pi::good();
    let order = pi.order(&ssh);
    drop(ssh);
    let error = join(&machine.root, &order).unwrap_err();
    assert!(matches!(error, JoinError::SshSilent { .. }), "{error:?}");
    assert!(!machine.root.path(KEYS).exists());
}

#[test]
fn another_pis_machine_is_kept_unless_replacing_was_asked_for() {
    let machine = Machine::new();
    let other = "DEFAULT_PI_HOST=192.0.2.9\n";
    fs::write(machine.root.path(PI_CONF), other).unwrap();
    fs::create_dir(machine.root.path("/home/me/.ssh")).unwrap();
    let line = "restrict,command=\"/usr/bin/usb-event-handler\" ssh-ed25519 BBBB usbip-pi\n";
    fs::write(machine.root.path(KEYS), line).unwrap();
    let (pi, ssh) = (Pi::good(), ssh());
    let mut order = pi.order(&ssh);
    let error = join(&machine.root, &order).unwrap_err();
    assert!(error.sentence().contains("192.0.2.9"), "{error:?}");
    assert!(error.remedy().unwrap().contains("--replace"));
    assert_eq!(pi.asked(), Vec::<String>::new());
    assert_eq!(machine.text(KEYS).as_deref(), Some(line));

    order.replace = true;
    join(&machine.root, &order).unwrap();
    let keys = machine.text(KEYS).unwrap();
    assert!(keys.contains(KEY) && !keys.contains("BBBB"), "{keys}");
}

#[test]
fn links_that_a_user_made_are_not_followed() {
    let ssh = ssh();
    for link in ["/home/me/.ssh", KEYS] {
        let machine = Machine::new();
        let target = machine.root.path("/target");
        if link == KEYS {
            fs::create_dir(machine.root.path("/home/me/.ssh")).unwrap();
            fs::write(&target, "precious").unwrap();
        } else {
            fs::create_dir(&target).unwrap();
        }
        symlink(&target, machine.root.path(link)).unwrap();
        let error = join(&machine.root, &Pi::good().order(&ssh)).unwrap_err();
        assert!(matches!(error, JoinError::Keys { .. }), "{error:?}");
        if link == KEYS {
            assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        } else {
            assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
        }
        assert!(!machine.text(PI_CONF).unwrap().contains("127.0.0.1"));
    }
}

#[test]
fn a_pi_that_speaks_nonsense_changes_nothing() {
    let ssh = ssh();
    let long = "x".repeat(100_000);
    for answer in ["", "[]", "{}", r#"{"key":"pty ssh-ed25519"}"#, &long] {
        let machine = Machine::new();
        let pi = Pi::new(&[(200, answer)]);
        let error = join(&machine.root, &pi.order(&ssh)).unwrap_err();
        assert!(
            matches!(error, JoinError::Answer { .. } | JoinError::BadKey),
            "{error:?}"
        );
        assert!(!machine.root.path(KEYS).exists());
    }
}
