//! Server-sent events.

use std::{sync::Arc, time::Duration};

use appliance::{manager::View, portal::MOST_READERS};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    rig::{CEILING, Rig},
    sample,
};

/// Where events are streamed: an answer there has no end.
pub const STREAMS: [&str; 3] = ["/events", "/vm/events", "/log/events"];

struct Reader {
    stream: TcpStream,
    unread: String,
}

impl Reader {
    /// Ask for events; the status of the answer.
    async fn open(rig: &Rig) -> (Self, u16) {
        Self::open_at(rig, "/events").await
    }

    async fn open_at(rig: &Rig, path: &str) -> (Self, u16) {
        let cookie = &rig.session().await.cookie;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\ncookie: {cookie}\r\nconnection: close\r\n\r\n"
        );
        let mut stream = rig.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let unread = String::new();
        let mut reader = Self { stream, unread };
        let head = reader.until("\r\n\r\n").await.unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (reader, status)
    }

    /// Everything up to this text; none when the connection ended.
    async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = self.unread.find(end) {
                let rest = self.unread.split_off(at + end.len());
                return Some(std::mem::replace(&mut self.unread, rest));
            }
            let mut chunk = vec![0; 16384];
            let read = timeout(CEILING, self.stream.read(&mut chunk))
                .await
                .unwrap();
            match read {
                Ok(n @ 1..) => self.unread += &String::from_utf8_lossy(&chunk[..n]),
                _ => return None,
            }
        }
    }

    /// The data of the next picture.
    async fn picture(&mut self) -> Option<String> {
        self.until("event: picture\ndata: ").await?;
        self.until("\n\n").await
    }
}

fn with_device(name: &str) -> Arc<View> {
    let mut view = sample::connected();
    view.devices.push(sample::device("1-1", name));
    Arc::new(view)
}

#[tokio::test]
async fn a_reader_gets_a_picture_and_then_the_changes() {
    let rig = Rig::new(sample::connected()).await;
    let (mut reader, status) = Reader::open(&rig).await;
    assert_eq!(status, 200);
    let first = reader.picture().await.unwrap();
    assert!(first.starts_with("<div id=\"live\"") && first.contains("No serial device"));

    rig.view.send_replace(with_device("Board\n\nevent: fake"));
    let second = reader.picture().await.unwrap();
    assert!(second.contains("Board  event: fake"), "{second}");

    rig.view.send_replace(Arc::new(sample::connected()));
    assert!(reader.picture().await.unwrap().contains("No serial device"));
}

#[tokio::test]
async fn many_changes_become_few_events_and_the_last_one_counts() {
    let rig = Rig::new(sample::connected()).await;
    let (mut reader, _) = Reader::open(&rig).await;
    let begun = Instant::now();
    for n in 0..500 {
        rig.view.send_replace(with_device(&format!("Board {n}.")));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut pictures: u128 = 0;
    loop {
        pictures += 1;
        if reader.picture().await.unwrap().contains("Board 499.") {
            break;
        }
    }
    let most = begun.elapsed().as_millis() / 100 + 2;
    assert!(pictures <= most, "{pictures} > {most}");
}

#[tokio::test]
async fn a_reader_that_lags_gets_the_latest() {
    let rig = Rig::new(sample::connected()).await;
    let (mut reader, _) = Reader::open(&rig).await;
    // Large enough to fill every buffer on the way, while nobody reads.
    let mut view = sample::connected();
    for port in 1..=200 {
        let device = sample::device(&format!("1-{port}"), &"W".repeat(126));
        view.devices.push(device);
    }
    for _ in 0..30 {
        rig.view.send_replace(Arc::new(view.clone()));
        tokio::time::sleep(Duration::from_millis(110)).await;
    }
    rig.view.send_replace(with_device("The last one"));
    let mut pictures = 0;
    while !reader.picture().await.unwrap().contains("The last one") {
        pictures += 1;
        assert!(pictures <= 40);
    }
}

#[tokio::test]
async fn readers_beyond_the_limit_are_told_so_and_places_become_free() {
    let rig = Rig::new(sample::connected()).await;
    let mut readers = Vec::new();
    for _ in 0..MOST_READERS {
        let (reader, status) = Reader::open(&rig).await;
        assert_eq!(status, 200);
        readers.push(reader);
    }
    assert_eq!(Reader::open(&rig).await.1, 503);
    assert_eq!(rig.get("/").await.status, 200);

    readers.pop();
    let begun = Instant::now();
    while Reader::open(&rig).await.1 != 200 {
        assert!(begun.elapsed() < CEILING);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    rig.view.send_replace(with_device("For everybody"));
    for reader in &mut readers {
        while !reader.picture().await.unwrap().contains("For everybody") {}
    }
}

#[tokio::test]
async fn events_end_with_the_manager() {
    let rig = Rig::new(sample::connected()).await;
    let (mut reader, _) = Reader::open(&rig).await;
    reader.picture().await.unwrap();
    drop(rig.view);
    assert_eq!(reader.picture().await, None);
}

#[tokio::test]
async fn every_stream_ends_with_the_session() {
    for path in STREAMS {
        let rig = Rig::new(sample::connected()).await;
        let kernel = rig.dir.path().join("kmsg");
        std::fs::write(kernel, "6,1,1500000,-;a line\n").unwrap();
        let (mut reader, status) = Reader::open_at(&rig, path).await;
        assert_eq!(status, 200, "{path}");
        reader.picture().await.unwrap();
        rig.access.sign_out_everywhere().await;
        rig.view.send_replace(with_device("A secret board"));
        assert_eq!(reader.picture().await, None, "{path}");
        assert_eq!(Reader::open_at(&rig, path).await.1, 401, "{path}");
        let line = format!("GET {path}");
        let stranger = rig.stranger(&line, &["host: localhost"], "").await;
        assert_eq!(stranger.status, 401, "{path}");
    }
}

#[tokio::test]
async fn the_log_grows_while_it_is_read() {
    let rig = Rig::new(sample::connected()).await;
    let kernel = rig.dir.path().join("kmsg");
    let first = "6,1,1500000,-;usb 1-1: <Board>\n";
    std::fs::write(&kernel, first).unwrap();
    let page = rig.get("/log").await;
    assert_eq!(page.status, 200);
    assert!(
        page.body.contains("usb 1-1: &lt;Board&gt;"),
        "{}",
        page.body
    );

    let (mut reader, status) = Reader::open_at(&rig, "/log/events").await;
    assert_eq!(status, 200);
    let picture = reader.picture().await.unwrap();
    assert!(
        picture.contains("line-1") && !picture.contains("line-2"),
        "{picture}"
    );
    std::fs::write(
        &kernel,
        first.to_owned() + "11,2,2500000,-;ERROR out of luck\n",
    )
    .unwrap();
    let picture = reader.picture().await.unwrap();
    assert!(picture.contains("out of luck"), "{picture}");

    rig.access.sign_out_everywhere().await;
    assert_eq!(reader.picture().await, None);
    assert_eq!(Reader::open_at(&rig, "/log/events").await.1, 401);
}

#[tokio::test]
async fn a_page_is_not_sent_again_what_it_shows_already() {
    let rig = Rig::new(sample::connected()).await;
    let page = rig.get("/").await.body;
    let events = page.split("data-events=\"").nth(1).unwrap();
    let events = events.split('"').next().unwrap();
    let (mut reader, status) = Reader::open_at(&rig, events).await;
    assert_eq!(status, 200);
    reader.until("event: build\n").await.unwrap();
    // The first picture is the first change.
    rig.view.send_replace(with_device("Board"));
    assert!(reader.picture().await.unwrap().contains("Board"));

    // A page from before the change gets the picture at once.
    let (mut late, _) = Reader::open_at(&rig, events).await;
    assert!(late.picture().await.unwrap().contains("Board"));
}
