//! How long a page takes when the history is full.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Instant,
};

use appliance::history::{
    Cursor, EARLIEST_MS, Event, Filter, Kind, Options, Stamp, Store, Subject,
};
use serde_json::{Value, json};

use super::{ms, sample};

const EVENTS: u32 = 100_000;
const DAY_MS: i64 = 86_400_000;

fn subject(port: u32) -> Subject {
    let mut device = sample::device(&format!("1-{port}"), "FT232R USB UART").facts;
    device.serial = Some(format!("A5069R{port:02}"));
    Subject::of(&device)
}

/// Times of pages of fifty, in milliseconds, and the size of the file.
pub fn measure() -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.db");
        let clock = Arc::new(AtomicI64::new(EARLIEST_MS));
        let hand = Arc::clone(&clock);
        let now = Arc::new(move || {
            let unix_ms = hand.load(Ordering::Relaxed);
            Stamp {
                mono_ms: unix_ms - EARLIEST_MS,
                unix_ms,
                set: true,
            }
        });
        let options = Options {
            now,
            ..Options::default()
        };
        let store = Store::open_with(&path, options).await;
        for n in 0..EVENTS {
            // So far apart that each is a row of its own.
            clock.fetch_add(70_000, Ordering::Relaxed);
            store.append(match n % 100 {
                0 => Event::new(Kind::SessionLost).saying("the VM does not answer"),
                _ => Event::new(Kind::Plugged).about(subject(n % 9 + 1)),
            });
            if n % 900 == 0 {
                store.flush().await;
            }
        }
        store.flush().await;
        let device = Some(subject(3).identity);
        let day = |n: i64| Some(EARLIEST_MS + n * DAY_MS);
        let all = Filter::default;
        let filters = [
            Filter {
                device: device.clone(),
                ..all()
            },
            Filter {
                kind: Some(Kind::SessionLost),
                ..all()
            },
            Filter {
                from_ms: day(9),
                to_ms: day(10),
                ..all()
            },
            Filter {
                to_ms: day(9),
                ..all()
            },
            Filter {
                device: device.clone(),
                from_ms: day(9),
                to_ms: day(10),
                ..all()
            },
            Filter {
                device,
                kind: Some(Kind::SessionLost),
                ..all()
            },
        ];
        let (mut newest, mut filtered) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            newest.push(page(&store, &all()).await);
            for filter in &filters {
                filtered.push(page(&store, filter).await);
            }
        }
        store.close().await;
        let bytes = std::fs::metadata(&path).unwrap().len();
        json!({ "newest_ms": newest, "filtered_ms": filtered, "bytes": bytes })
    })
}

async fn page(store: &Store, filter: &Filter) -> f64 {
    let begun = Instant::now();
    store.events(filter, Cursor::Newest, 50).await;
    ms(begun.elapsed())
}
