//! Browsers: one that looks at the dashboard again and again, and those that only wait for changes.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::ms;

/// Between two looks at the dashboard.
const PAUSE: Duration = Duration::from_millis(5);
/// How long what is measured is left to settle.
const SETTLE: Duration = Duration::from_secs(3);

/// Somebody who is signed in.
pub struct Visitor {
    address: SocketAddr,
    cookie: String,
}

/// What a browser fetches to show the dashboard.
pub struct Load {
    pub bytes: usize,
    pub requests: usize,
}

impl Visitor {
    /// Claim the portal.
    pub fn claim(address: SocketAddr) -> Self {
        let form = "password=correct+horse+battery&again=correct+horse+battery";
        let mut stream = TcpStream::connect(address).unwrap();
        write!(
            stream,
            "POST /claim HTTP/1.1\r\nhost: localhost\r\norigin: http://localhost\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
            form.len()
        )
        .unwrap();
        let (head, _) = answer(&mut stream);
        let cookie = head
            .lines()
            .find_map(|line| line.strip_prefix("set-cookie: "));
        let cookie = cookie.unwrap().split(';').next().unwrap().to_owned();
        Self { address, cookie }
    }

    fn get(&self, path: &str) -> String {
        let cookie = &self.cookie;
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\ncookie: {cookie}\r\n\r\n")
    }

    fn fetch(&self, stream: &mut TcpStream, path: &str) -> (usize, String) {
        stream.write_all(self.get(path).as_bytes()).unwrap();
        let (head, body) = answer(stream);
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        (head.len() + body.len(), body)
    }

    /// The dashboard with all it refers to, and the first that comes of the stream of changes.
    pub fn first_load(&self) -> Load {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let (mut bytes, page) = self.fetch(&mut stream, "/");
        let mut requests = 1;
        for part in page.split("=\"/assets/").skip(1) {
            let name = part.split('"').next().unwrap();
            bytes += self.fetch(&mut stream, &format!("/assets/{name}")).0;
            requests += 1;
        }
        let events = page.split("data-events=\"").nth(1).unwrap();
        let events = events.split('"').next().unwrap();
        stream.write_all(self.get(events).as_bytes()).unwrap();
        let mut events = Vec::new();
        let mut chunk = [0; 4096];
        while !String::from_utf8_lossy(&events).contains("\n\n") {
            let n = stream.read(&mut chunk).unwrap();
            events.extend_from_slice(&chunk[..n]);
        }
        Load {
            bytes: bytes + events.len(),
            requests: requests + 1,
        }
    }

    /// How long the dashboard takes, in milliseconds.
    pub fn dashboard(&self, times: usize) -> Vec<f64> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        let once = |_| {
            thread::sleep(PAUSE);
            let begun = Instant::now();
            self.fetch(&mut stream, "/");
            ms(begun.elapsed())
        };
        (0..times).map(once).collect()
    }
}

/// Read one answer that says how long it is.
fn answer(stream: &mut TcpStream) -> (String, String) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        let n = stream.read(&mut chunk).unwrap();
        assert!(n > 0, "the portal hung up");
        bytes.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        if body.len() >= length {
            return (head.to_owned(), body.to_owned());
        }
    }
}

/// Pages that are open.
pub struct Readers {
    read: Arc<AtomicU64>,
    begun: Instant,
    end: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Readers {
    pub fn open(visitor: &Visitor, count: usize) -> Self {
        let (read, end) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (pictures, ending) = (Arc::clone(&read), Arc::clone(&end));
        let (address, request) = (visitor.address, visitor.get("/events"));
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                for _ in 0..count {
                    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                    stream.write_all(request.as_bytes()).await.unwrap();
                    let pictures = Arc::clone(&pictures);
                    tokio::spawn(async move {
                        let mut chunk = [0; 16 * 1024];
                        while let Ok(n @ 1..) = stream.read(&mut chunk).await {
                            let text = String::from_utf8_lossy(&chunk[..n]);
                            let seen = text.matches("event: picture").count();
                            pictures.fetch_add(seen as u64, Ordering::Relaxed);
                        }
                    });
                }
                while !ending.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        });
        thread::sleep(SETTLE);
        read.store(0, Ordering::Relaxed);
        let begun = Instant::now();
        Self {
            read,
            begun,
            end,
            thread: Some(thread),
        }
    }

    /// Changes that all pages together were sent in a second.
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    pub fn pictures(&self) -> f64 {
        self.read.load(Ordering::Relaxed) as f64 / self.begun.elapsed().as_secs_f64()
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}
