//! A real sshd on loopback with a helper of a few lines of shell behind it, and a link to it.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use appliance::vm::{
    Config, Event, Failure, FailureKind, Link, LinkHandle, Pairing, PublicKey, conf,
    host_key::Pins, key::Key,
};
use protocol::line::{DEFAULT_GRACE_SECONDS, PROTOCOL, PiHello};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// Ceiling for every wait; what is waited for takes a fraction of it.
pub const CEILING: Duration = Duration::from_mins(1);

pub const BOOT_ID: &str = "0d3b2c1a-0000-4000-8000-1234567890ab";

/// A helper that does what it should; `DIR` stands for the bed's directory.
pub const GOOD_HELPER: &str = r#"
[ "$SSH_ORIGINAL_COMMAND" = "usb-event-handler session" ] || exit 2
echo $$ > DIR/helper.pid
echo "Welcome to this VM"
echo '{"hello":{"protocol":1,"version":"0.1.0","boot_id":"b","host_name":"testvm"}}'
while read -r line; do
    case "$line" in
        hello*) echo "$line" > DIR/greeted; answer='"welcome":{"cleared":[]}' ;;
        ping) answer='"pong":{}' ;;
        status) answer='"status":{"boot_id":"b","attachments":[],"ports_free":7,"ports_total":8}' ;;
        check) continue ;;
        *) answer='"error":{"kind":"bad_request","message":"no"}' ;;
    esac
    printf '{"re":"%s",%s}\n' "$line" "$answer"
done
touch DIR/helper.ended
"#;

/// Everything one test needs; ends what it started when dropped.
pub struct Bed {
    dir: TempDir,
    pub port: u16,
    /// Whether the server lets users in with their passwords.
    pub passwords: bool,
    server: Option<Child>,
    pub pins: Pins,
    pub key: Key,
}

impl Bed {
    /// An sshd that lets the Pi's key run a good helper; paired and pinned.
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ssh_dir = dir.path().join("ssh");
        let key = Key::ensure(&ssh_dir).await.unwrap();
        // Free a moment ago; sshd cannot choose one itself.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut bed = Self {
            pins: Pins::new(&ssh_dir),
            dir,
            port,
            passwords: false,
            server: None,
            key,
        };
        bed.make_host_key("host_key");
        bed.helper(GOOD_HELPER);
        bed.authorize();
        bed.pins.pin(&[bed.host_key("host_key")]).unwrap();
        bed.pair("127.0.0.1");
        bed.start_server().await;
        bed
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn make_host_key(&self, name: &str) {
        let status = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(self.path(name))
            .status();
        assert!(status.unwrap().success());
    }

    pub fn host_key(&self, name: &str) -> PublicKey {
        let line = fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap();
        PublicKey::parse(&line).unwrap()
    }

    /// What the forced command runs from now on.
    pub fn helper(&self, script: &str) {
        let script = script.replace("DIR", &self.dir.path().display().to_string());
        let path = self.path("helper");
        fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn authorize(&self) {
        let (helper, key) = (self.path("helper"), self.key.public_key());
        let line = format!("restrict,command=\"{}\" {key}\n", helper.display());
        fs::write(self.path("authorized_keys"), line).unwrap();
    }

    pub fn pair(&self, host: &str) {
        let pairing = Pairing {
            host: host.to_owned(),
            user: user(),
        };
        conf::write(&self.path("vm.conf"), &pairing).unwrap();
    }

    pub async fn start_server(&mut self) {
        if user() == "root" {
            // sshd's own empty directory, which the service unit makes elsewhere.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let dir = self.dir.path().display();
        let text = format!(
            "Port {}\nListenAddress 127.0.0.1\nListenAddress 127.0.0.2\nHostKey {dir}/host_key\n\
             AuthorizedKeysFile {dir}/authorized_keys\nStrictModes no\nUsePAM no\nPidFile none\n\
             PermitRootLogin yes\nPasswordAuthentication {}\n",
            self.port,
            if self.passwords { "yes" } else { "no" }
        );
        fs::write(self.path("sshd_config"), text).unwrap();
        let server = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(self.path("sshd_config"))
            .stdin(Stdio::null())
            .stderr(fs::File::create(self.path("sshd.log")).unwrap())
            .spawn()
            .expect("sshd runs (package openssh-server)");
        self.server = Some(server);
        eventually("sshd listens", || {
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        })
        .await;
    }

    /// Kills the server and every session of it, as when the machine dies but for its kernel.
    pub fn kill_server(&mut self) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        let mut doomed = vec![server.id()];
        let mut at = 0;
        while at < doomed.len() {
            doomed.extend(children(doomed[at]));
            at += 1;
        }
        for pid in doomed {
            signal(pid, Signal::KILL);
        }
        server.wait().unwrap();
    }

    pub fn config(&self) -> Config {
        let mut config = Config::new(PiHello {
            protocol: PROTOCOL,
            version: "0.1.0".into(),
            boot_id: BOOT_ID.into(),
            grace_seconds: DEFAULT_GRACE_SECONDS,
            gives_next: false,
        });
        config.vm_conf = self.path("vm.conf");
        config.ssh_dir = self.path("ssh");
        config.control_dir = self.path("c");
        config.port = self.port;
        config
    }

    pub fn link(&self) -> (LinkHandle, Events) {
        let (handle, events) = Link::spawn(self.config());
        (handle, Events(events))
    }

    /// The helper that greeted last.
    pub fn helper_pid(&self) -> u32 {
        let text = fs::read_to_string(self.path("helper.pid")).unwrap();
        text.trim().parse().unwrap()
    }

    /// The ssh processes of this bed's control directory.
    pub fn masters(&self) -> Vec<u32> {
        let mark = self.path("c").display().to_string();
        processes()
            .filter(|pid| {
                let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let command = String::from_utf8_lossy(&command).into_owned();
                command.starts_with("ssh") && command.contains(&mark)
            })
            .collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.kill_server();
        for pid in self.masters() {
            signal(pid, Signal::KILL);
        }
    }
}

/// What the link reported.
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    pub async fn next(&mut self) -> Event {
        tokio::time::timeout(CEILING, self.0.recv())
            .await
            .expect("an event within the ceiling")
            .expect("the link runs")
    }

    /// Skips events until one is what is wanted.
    pub async fn until<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let search = async {
            loop {
                let event = self.next().await;
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
        };
        tokio::time::timeout(CEILING, search)
            .await
            .expect("the event within the ceiling")
    }

    pub async fn up(&mut self) -> std::net::IpAddr {
        self.until(|event| match event {
            Event::Up { address, .. } => Some(*address),
            _ => None,
        })
        .await
    }

    pub async fn down(&mut self, kind: FailureKind) -> Failure {
        self.until(|event| match event {
            Event::Down(failure) if failure.kind == kind => Some(failure.clone()),
            _ => None,
        })
        .await
    }
}

/// Waits for a state of the machine.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let search = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        tokio::time::timeout(CEILING, search).await.is_ok(),
        "{what}"
    );
}

pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // One that is gone by now is fine.
    let _ = kill_process(pid, signal);
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn children(parent: u32) -> Vec<u32> {
    processes()
        .filter(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // PID (NAME) STATE PPID ...; the name may hold anything.
            let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
            after.split_whitespace().nth(1) == Some(&parent.to_string())
        })
        .collect()
}

pub fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
