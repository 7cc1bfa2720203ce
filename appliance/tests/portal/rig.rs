//! A portal on a free port, and a client that sends what it is told to.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use appliance::{
    history::{Options, Store},
    manager::{Command, View},
    portal::{Context, Packages, Portal, PortalError},
    vm::{Config, Pairer},
};
use protocol::line::{DEFAULT_GRACE_SECONDS, PROTOCOL, PiHello};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};

/// Nothing here takes that long.
pub const CEILING: Duration = Duration::from_secs(20);

pub struct Rig {
    pub address: std::net::SocketAddr,
    pub view: watch::Sender<Arc<View>>,
    pub commands: mpsc::Receiver<Command>,
    pub alive: Arc<AtomicBool>,
    /// The places of the pairing.
    pub dir: tempfile::TempDir,
    pub stop: oneshot::Sender<()>,
    /// The folder of the packages: two of them.
    pub packages: tempfile::TempDir,
    pub served: JoinHandle<Result<(), PortalError>>,
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

/// The places of the pairing, below a directory.
fn config(dir: &std::path::Path) -> Config {
    let mut config = Config::new(PiHello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").into(),
        boot_id: String::new(),
        grace_seconds: DEFAULT_GRACE_SECONDS,
    });
    config.vm_conf = dir.join("vm.conf");
    config.ssh_dir = dir.join("ssh");
    // Nothing listens there.
    config.port = 9;
    config.control_dir = dir.join("c");
    config
}

impl Rig {
    pub fn new(view: View) -> Self {
        let (view, receiver) = watch::channel(Arc::new(view));
        let (sender, commands) = mpsc::channel(4);
        let alive = Arc::new(AtomicBool::new(true));
        let dir = tempfile::tempdir().unwrap();
        let packages = packages();
        let context = Context {
            view: receiver,
            commands: sender,
            pairer: Pairer::new(config(dir.path()), Arc::new(|| {})),
            started: Instant::now(),
            alive: {
                let alive = Arc::clone(&alive);
                Arc::new(move || alive.load(Ordering::Relaxed))
            },
            notices: Arc::new(|| vec!["line 3 of <appliance.conf> is wrong".into()]),
            history: Store::in_memory(Options::default()),
            names: vec!["pi.lab.example".into()],
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

    /// A request with these header lines.
    pub async fn request(&self, line: &str, headers: &[&str], body: &str) -> Answer {
        let mut text = format!("{line} HTTP/1.1\r\nconnection: close\r\n");
        for header in headers {
            let _ = write!(text, "{header}\r\n");
        }
        if !body.is_empty() {
            let _ = write!(text, "content-length: {}\r\n", body.len());
        }
        let answer = self.raw(format!("{text}\r\n{body}").as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        Answer {
            status: head.split(' ').nth(1).unwrap_or("0").parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request(&format!("GET {path}"), &["host: localhost:8080"], "")
            .await
    }

    /// As a browser sends the portal's own form.
    pub async fn post(&self, path: &str) -> Answer {
        self.post_form(path, "").await
    }

    /// The same with fields, encoded.
    pub async fn post_form(&self, path: &str, fields: &str) -> Answer {
        let headers = [
            "host: localhost:8080",
            "origin: http://localhost:8080",
            "content-type: application/x-www-form-urlencoded",
        ];
        self.request(&format!("POST {path}"), &headers, fields)
            .await
    }
}

/// The names of the two packages, and what is in them.
pub const PACKAGES: [(&str, &str); 2] = [
    ("usbip-vm-helper_0.1.0_amd64.deb", "0123456789"),
    ("usbip-vm-helper-0.1.0-amd64.tar.gz", "abc"),
];

fn packages() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in PACKAGES {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}
