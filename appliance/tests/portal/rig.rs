//! A portal on a free port, and a client that sends what it is told to.
//!
//! The client is signed in unless it is told not to be: [`Rig::get`], [`Rig::post`],
//! [`Rig::post_form`] and [`Rig::request`] send the session's cookie, the posts its form token, too.
//! [`Rig::stranger`] and [`Rig::raw`] send what they are given.

use std::{
    fmt::Write as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use appliance::{
    access::{self, Access, Cost},
    history::{Options, Store},
    manager::{Command, View},
    portal::{Context, Joins, Packages, Portal, PortalError},
    system::KernelLog,
    vm::{Config, Discovery, Pairer, discovery::Found},
};
use protocol::line::{DEFAULT_GRACE_SECONDS, PROTOCOL, PiHello};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{OnceCell, mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};

/// Nothing here takes that long.
pub const CEILING: Duration = Duration::from_secs(20);

/// The password that the rig claims its portal with.
pub const PASSWORD: &str = "correct horse battery";

/// The header that a browser sends with each of the portal's own forms, and the form's kind.
pub const OWN_FORM: [&str; 3] = [
    "host: localhost:8080",
    "origin: http://localhost:8080",
    "content-type: application/x-www-form-urlencoded",
];

/// A session: the cookie, and the token of its forms.
#[derive(Debug, Clone)]
pub struct SignedIn {
    pub cookie: String,
    pub form_token: String,
}

pub struct Rig {
    pub address: std::net::SocketAddr,
    pub view: watch::Sender<Arc<View>>,
    pub commands: mpsc::Receiver<Command>,
    pub alive: Arc<AtomicBool>,
    /// The places of the password and the pairing.
    pub dir: TempDir,
    pub stop: oneshot::Sender<()>,
    /// The folder of the packages: two of them.
    pub packages: TempDir,
    pub served: JoinHandle<Result<(), PortalError>>,
    pub access: Access,
    pub history: Store,
    signed_in: OnceCell<SignedIn>,
}

/// Access as on a Pi that was just started, but at little cost.
pub fn access_config(folder: &Path) -> access::Config {
    access::Config {
        password: folder.join("portal/password"),
        reset: folder.join("reset-password"),
        uptime: || Duration::from_mins(1),
        cost: Cost {
            memory_kib: 8,
            passes: 1,
        },
    }
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// A VM with the helper, and a machine that means no good.
fn network() -> [Found; 2] {
    [
        Found {
            name: "build-vm".into(),
            host: "192.168.1.20".into(),
            user: "builder".into(),
            helper: Some("0.1.0".into()),
        },
        Found {
            name: "<script>alert(1)</script>\u{202e}".into(),
            host: "fe80::1%eth0".into(),
            user: "dev".into(),
            helper: None,
        },
    ]
}

/// The places of the pairing, below a directory.
fn config(dir: &Path, ssh_port: u16) -> Config {
    let mut config = Config::new(PiHello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").into(),
        boot_id: String::new(),
        grace_seconds: DEFAULT_GRACE_SECONDS,
        gives_next: false,
    });
    config.vm_conf = dir.join("vm.conf");
    config.ssh_dir = dir.join("ssh");
    config.port = ssh_port;
    config.discovery = Discovery::of(network());
    config.control_dir = dir.join("c");
    config
}

impl Rig {
    pub async fn new(view: View) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = access_config(dir.path());
        Self::with(view, dir, config).await
    }

    /// One that finds the VM's SSH server at this port.
    pub async fn with_ssh_port(view: View, ssh_port: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = access_config(dir.path());
        let store = Store::in_memory(Options::default());
        Self::build(view, dir, config, store, ssh_port).await
    }

    /// One with these places for the password and the pairing.
    pub async fn with(view: View, dir: TempDir, access: access::Config) -> Self {
        let store = Store::in_memory(Options::default());
        Self::with_store(view, dir, access, store).await
    }

    /// The same with a store.
    pub async fn with_store(
        view: View,
        dir: TempDir,
        access: access::Config,
        store: Store,
    ) -> Self {
        // Nothing listens there.
        Self::build(view, dir, access, store, 9).await
    }

    async fn build(
        view: View,
        dir: TempDir,
        access: access::Config,
        store: Store,
        ssh_port: u16,
    ) -> Self {
        let access = Access::open(access, store.clone()).await;
        let (view, receiver) = watch::channel(Arc::new(view));
        let (sender, commands) = mpsc::channel(4);
        let alive = Arc::new(AtomicBool::new(true));
        let packages = packages();
        let context = Context {
            view: receiver,
            commands: sender,
            pairer: Pairer::new(config(dir.path(), ssh_port), Arc::new(|| {})),
            access: access.clone(),
            started: Instant::now(),
            alive: {
                let alive = Arc::clone(&alive);
                Arc::new(move || alive.load(Ordering::Relaxed))
            },
            notices: Arc::new(|| vec!["line 3 of <appliance.conf> is wrong".into()]),
            history: store.clone(),
            log: KernelLog::new(&dir.path().join("kmsg")),
            names: vec!["pi.lab.example".into()],
            joins: Joins::default(),
            packages: Packages::new(packages.path().into()),
        };
        let (stop, stopped) = oneshot::channel();
        let portal = Portal::bind(([127, 0, 0, 1], 0).into(), context).unwrap();
        Self {
            address: portal.address(),
            view,
            commands,
            alive,
            dir,
            stop,
            packages,
            served: tokio::spawn(portal.run(async {
                let _ = stopped.await;
            })),
            access,
            history: store,
            signed_in: OnceCell::new(),
        }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Send these bytes and read until the portal closes the connection.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // A refused body may be cut off while it is still being sent.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let mut chunk = vec![0; 4096];
        while let Ok(n @ 1..) = timeout(CEILING, stream.read(&mut chunk)).await.unwrap() {
            answer.extend_from_slice(&chunk[..n]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The session of this rig's client; the first call claims the portal.
    pub async fn session(&self) -> &SignedIn {
        let claim = async {
            let form = [("password", PASSWORD), ("again", PASSWORD)];
            let answer = self.stranger_form("/claim", &form).await;
            assert_eq!(answer.status, 303, "{}", answer.body);
            self.session_of(&answer).await
        };
        self.signed_in.get_or_init(|| claim).await
    }

    /// The session that an answer begins.
    pub async fn session_of(&self, answer: &Answer) -> SignedIn {
        let set = answer.header("set-cookie").unwrap();
        let cookie = set.split(';').next().unwrap().to_owned();
        let header = format!("cookie: {cookie}");
        let page = self
            .stranger("GET /", &["host: localhost", &header], "")
            .await;
        let form_token = page
            .body
            .split_once("name=\"form_token\" value=\"")
            .and_then(|(_, rest)| rest.split_once('"'))
            .map(|(token, _)| token.to_owned())
            .unwrap();
        SignedIn { cookie, form_token }
    }

    /// A request with these header lines and nothing else.
    pub async fn stranger(&self, line: &str, headers: &[&str], body: &str) -> Answer {
        let mut text = format!("{line} HTTP/1.1\r\nconnection: close\r\n");
        for header in headers {
            let _ = write!(text, "{header}\r\n");
        }
        if !body.is_empty() {
            let _ = write!(text, "content-length: {}\r\n", body.len());
        }
        let answer = self.raw(format!("{text}\r\n{body}").as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let mut answer = Answer {
            status: head.split(' ').nth(1).unwrap_or("0").parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = whole(&answer.body);
        }
        answer
    }

    /// A form of a browser that is not signed in.
    pub async fn stranger_form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let body = encoded(fields);
        self.stranger(&format!("POST {path}"), &OWN_FORM, &body)
            .await
    }

    /// A request with these header lines and the session's cookie.
    pub async fn request(&self, line: &str, headers: &[&str], body: &str) -> Answer {
        let cookie = format!("cookie: {}", self.session().await.cookie);
        let headers = [headers, &[&cookie]].concat();
        self.stranger(line, &headers, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request(&format!("GET {path}"), &["host: localhost:8080"], "")
            .await
    }

    /// As a browser sends the portal's own form.
    pub async fn post(&self, path: &str) -> Answer {
        self.post_form(path, &[]).await
    }

    /// As a browser sends the portal's own form with these fields and the form token.
    pub async fn post_form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.post_encoded(path, &encoded(fields)).await
    }

    /// The same with fields that are encoded already, rightly or wrongly.
    pub async fn post_encoded(&self, path: &str, fields: &str) -> Answer {
        let body = format!("form_token={}&{fields}", self.session().await.form_token);
        self.request(&format!("POST {path}"), &OWN_FORM, &body)
            .await
    }
}

/// The names of the two packages, and what is in them.
pub const PACKAGES: [(&str, &str); 2] = [
    ("usbip-vm-helper_0.1.0_amd64.deb", "0123456789"),
    ("usbip-vm-helper-0.1.0-amd64.tar.gz", "abc"),
];

fn packages() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in PACKAGES {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn encoded(fields: &[(&str, &str)]) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(fields).finish()
}

/// The chunks of a body, put together.
fn whole(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((length, rest)) = chunks.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        let (chunk, rest) = rest.split_at(length);
        body.push_str(chunk);
        chunks = rest.trim_start_matches("\r\n");
    }
    body
}
