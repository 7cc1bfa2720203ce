//! A store whose clock is set by hand.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use appliance::history::{
    Cursor, EARLIEST_MS, Event, Filter, Kind, Options, Record, Stamp, Store, Subject,
};

/// 1 September 2026, 00:00.
pub const SEPTEMBER: i64 = EARLIEST_MS + 62 * 86_400_000;

/// Both clocks of a made-up Pi that booted just now.
#[derive(Clone, Default)]
pub struct Hands {
    mono_ms: Arc<AtomicI64>,
    /// What the wall clock showed at boot.
    boot_ms: Arc<AtomicI64>,
}

impl Hands {
    /// A Pi whose clock was set before it booted.
    pub fn set() -> Self {
        let hands = Self::default();
        hands.set_to(SEPTEMBER);
        hands
    }

    pub fn pass(&self, ms: i64) {
        self.mono_ms.fetch_add(ms, Ordering::Relaxed);
    }

    pub fn set_to(&self, unix_ms: i64) {
        let boot_ms = unix_ms - self.mono_ms.load(Ordering::Relaxed);
        self.boot_ms.store(boot_ms, Ordering::Relaxed);
    }

    pub fn options(&self) -> Options {
        let hands = self.clone();
        Options {
            boot_id: "boot 1".into(),
            now: Arc::new(move || {
                let mono_ms = hands.mono_ms.load(Ordering::Relaxed);
                Stamp {
                    mono_ms,
                    unix_ms: hands.boot_ms.load(Ordering::Relaxed) + mono_ms,
                    set: hands.boot_ms.load(Ordering::Relaxed) >= SEPTEMBER - 86_400_000,
                }
            }),
            ..Options::default()
        }
    }

    pub async fn open(&self, path: &Path) -> Store {
        Store::open_with(path, self.options()).await
    }
}

/// A device at this port.
pub fn subject(port: u8) -> Subject {
    Subject {
        identity: format!("0403:6001 serial FT{port}").into(),
        busid: format!("1-{port}").parse().unwrap(),
        name: Some(format!("Board {port}")),
    }
}

pub fn plug(port: u8) -> Event {
    Event::new(Kind::Plugged).about(subject(port))
}

pub fn refusal(peer: &str) -> Event {
    let event = Event::new(Kind::Refused).by(peer.parse().unwrap());
    event.saying("only the paired VM may import")
}

/// Every event, the oldest first.
pub async fn all(store: &Store) -> Vec<Record> {
    let mut records = Vec::new();
    let mut cursor = Cursor::After(0);
    loop {
        let reading = store.events(&Filter::default(), cursor, 1000).await;
        assert!(reading.complete);
        records.extend(reading.records);
        if !reading.more {
            return records;
        }
        cursor = Cursor::After(records.last().unwrap().sequence);
    }
}

pub async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !reached().await {
        assert!(begun.elapsed() < Duration::from_mins(1), "waiting: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
