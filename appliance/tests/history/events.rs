//! Events: kept in order, dated, gathered, capped.

use std::path::PathBuf;

use appliance::{
    history::{
        AttachDetail, Clock, Cursor, EARLIEST_MS, Event, Filter, Kind, Options, Sighting, Store,
        record_start,
    },
    manager::Identity,
};

use crate::rig::{Hands, SEPTEMBER, all, plug, refusal, subject};

fn file() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    (dir, path)
}

#[tokio::test]
async fn events_survive_a_restart_in_their_order() {
    let (_dir, path) = file();
    let hands = Hands::set();
    let store = hands.open(&path).await;
    let attached = Event {
        attached: Some(AttachDetail {
            ttys: vec!["/dev/ttyUSB0".into()],
            port: 3,
            plug_to_tty_ms: Some(412),
            timings: None,
        }),
        ..Event::new(Kind::Attached).about(subject(1))
    };
    let events = [
        Event::new(Kind::Started).saying("version 1"),
        plug(1),
        attached,
        refusal("::ffff:192.0.2.7"),
    ];
    for event in &events {
        hands.pass(10);
        store.append(event.clone());
    }
    // Before they are written and after.
    let waiting = all(&store).await;
    store.flush().await;
    assert_eq!(all(&store).await, waiting);
    store.close().await;

    let store = hands.open(&path).await;
    assert_eq!(all(&store).await, waiting);
    let stored: Vec<_> = waiting.iter().map(|record| record.event.clone()).collect();
    assert_eq!(stored, events);
    let order: Vec<_> = waiting.iter().map(|r| (r.sequence, r.unix_ms)).collect();
    let times = [(1, 10), (2, 20), (3, 30), (4, 40)];
    assert_eq!(order, times.map(|(n, ms)| (n, SEPTEMBER + ms)));
    assert_eq!(stored[3].peer.unwrap().to_string(), "192.0.2.7");
    store.append(plug(2));
    assert_eq!(all(&store).await[4].sequence, 5);
    store.close().await;
}

#[tokio::test]
async fn a_start_of_another_version_is_an_update() {
    let (_dir, path) = file();
    let hands = Hands::set();
    for version in ["0.1.0", "0.2.0", "0.2.0", "0.1.0"] {
        let store = hands.open(&path).await;
        hands.pass(60_000);
        record_start(&store, version).await;
        store.append(plug(1));
        store.close().await;
    }
    let store = hands.open(&path).await;
    let filter = Filter {
        kind: Some(Kind::Update),
        ..Filter::default()
    };
    let updates = store.events(&filter, Cursor::After(0), 10).await.records;
    let messages = updates.iter().filter_map(|r| r.event.message.as_deref());
    let expected = [
        "version 0.1.0 was replaced by version 0.2.0",
        "version 0.2.0 was replaced by version 0.1.0",
    ];
    assert_eq!(messages.collect::<Vec<_>>(), expected);
    store.close().await;
}

#[tokio::test]
async fn what_is_wanted_is_found_page_by_page() {
    let (_dir, path) = file();
    let hands = Hands::set();
    let store = hands.open(&path).await;
    for n in 0..50 {
        hands.pass(100_000);
        store.append(plug(n % 2 + 1));
        if n == 30 {
            store.flush().await;
        }
    }
    let filter = Filter {
        device: Some(subject(1).identity),
        kind: Some(Kind::Plugged),
        from_ms: Some(SEPTEMBER + 1_000_000),
        to_ms: Some(SEPTEMBER + 4_000_000),
    };
    let (mut cursor, mut found) = (Cursor::Newest, Vec::new());
    loop {
        let reading = store.events(&filter, cursor, 4).await;
        found.extend(reading.records.iter().map(|record| record.sequence));
        if !reading.more {
            break;
        }
        assert_eq!(reading.records.len(), 4);
        cursor = Cursor::Before(*found.last().unwrap());
    }
    let wanted: Vec<i64> = (10..40).rev().filter(|n| n % 2 == 1).collect();
    assert_eq!(found, wanted);
    let other = Filter {
        kind: Some(Kind::Unplugged),
        ..Filter::default()
    };
    let reading = store.events(&other, Cursor::Newest, 10).await;
    assert!(reading.records.is_empty() && !reading.more && reading.complete);
    store.close().await;
}

#[tokio::test]
async fn times_from_before_the_clock_was_set_are_worked_out() {
    let (_dir, path) = file();
    let hands = Hands::default();
    // It may look like a time.
    hands.set_to(EARLIEST_MS + 1000);
    let store = hands.open(&path).await;
    let sighting = |plugged| Sighting {
        identity: subject(1).identity,
        vendor: 0x0403,
        product: 0x6001,
        manufacturer: None,
        name: None,
        serial: None,
        port: "usb:1".into(),
        plugged,
    };
    hands.pass(1000);
    store.append(plug(1));
    store.saw(sighting(false));
    store.flush().await;
    hands.pass(1000);
    store.append(plug(2));
    let clocks: Vec<_> = all(&store).await.iter().map(|r| r.clock).collect();
    assert_eq!(clocks, [Clock::Unset; 2]);
    assert_eq!(store.known().await[0].last_ms, None);

    hands.set_to(SEPTEMBER);
    hands.pass(500);
    store.append(plug(3));
    store.flush().await;
    let dated = |records: Vec<appliance::history::Record>| {
        let dated = records
            .into_iter()
            .map(|r| (r.unix_ms - SEPTEMBER, r.clock));
        dated.collect::<Vec<_>>()
    };
    let expected = [
        (-1000, Clock::WorkedOut),
        (0, Clock::WorkedOut),
        (500, Clock::Set),
    ];
    assert_eq!(dated(all(&store).await), expected);
    let known = &store.known().await[0];
    let seen = Some(SEPTEMBER - 1000);
    assert_eq!((known.first_ms, known.last_ms), (seen, seen));
    store.close().await;
    let store = Hands::set().open(&path).await;
    assert_eq!(dated(all(&store).await), expected);
    store.close().await;
}

#[tokio::test]
async fn a_stranger_who_keeps_knocking_fills_neither_disk_nor_history() {
    let (_dir, path) = file();
    let hands = Hands::set();
    let store = hands.open(&path).await;
    // A day of five knocks a second.
    for n in 0..5 * 86_400 {
        hands.pass(200);
        store.append(refusal("192.0.2.7"));
        if n % 100_000 == 0 {
            store.flush().await;
        }
    }
    let records = all(&store).await;
    assert!(records.len() < 40, "{}", records.len());
    assert_eq!(records.iter().map(|r| r.count).sum::<u32>(), 5 * 86_400);
    // After a pause it is news again.
    hands.pass(120_000);
    store.append(refusal("192.0.2.7"));
    store.append(refusal("192.0.2.8"));
    assert_eq!(all(&store).await.len(), records.len() + 2);
    // So many addresses that they are not told apart.
    for n in 0..1000 {
        store.append(refusal(&format!("2001:db8::{n:x}")));
    }
    let many = all(&store).await;
    assert!(many.len() < records.len() + 20, "{}", many.len());
    let crowd = many.last().unwrap();
    assert!(crowd.event.peer.is_none() && crowd.count > 900);
    store.close().await;
}

#[tokio::test]
async fn a_flapping_device_is_told_event_by_event_at_first() {
    let (_dir, path) = file();
    let hands = Hands::set();
    let store = hands.open(&path).await;
    for _ in 0..36_000 {
        hands.pass(100);
        store.append(plug(1));
        store.append(Event::new(Kind::Unplugged).about(subject(1)));
    }
    store.append(plug(2));
    store.flush().await;
    let records = all(&store).await;
    assert!(records.len() < 30, "{}", records.len());
    assert!(records.iter().take(10).all(|r| r.count < 1000));
    assert_eq!(records.last().unwrap().event.device, Some(subject(2)));
    let repeated = records.iter().find(|r| r.count > 1).unwrap();
    assert!(repeated.last_ms > repeated.unix_ms);
    store.close().await;
}

#[tokio::test]
async fn the_oldest_make_room() {
    let (_dir, path) = file();
    let hands = Hands::set();
    let options = Options {
        most_events: 1000,
        ..hands.options()
    };
    let store = Store::open_with(&path, options).await;
    for n in 0..4000u32 {
        hands.pass(61_000);
        let peer = format!("10.0.{}.{}", n / 256, n % 256);
        store.append(refusal(&peer));
        if n % 4 == 0 {
            store.append(plug(1));
        }
        if n % 200 == 0 {
            store.flush().await;
        }
    }
    store.flush().await;
    let records = all(&store).await;
    assert!((1000..=1300).contains(&records.len()), "{}", records.len());
    assert_eq!(records.last().unwrap().sequence, 5000);
    // Strangers cannot push out what happened to the devices.
    let plugs = records.iter().filter(|r| r.event.kind == Kind::Plugged);
    assert!(plugs.count() >= 750);
    store.close().await;
}

#[tokio::test]
async fn devices_are_known_from_their_first_to_their_last_sighting() {
    let (_dir, path) = file();
    let hands = Hands::set();
    let sighting = |plugged, name: &str| Sighting {
        identity: Identity::from("a".to_owned()),
        vendor: 0x10c4,
        product: 0xea60,
        manufacturer: Some("Silicon Labs".into()),
        name: Some(name.into()),
        serial: Some("0001".into()),
        port: "usb:1.4".into(),
        plugged,
    };
    let store = hands.open(&path).await;
    store.saw(sighting(true, "old name"));
    store.flush().await;
    for _ in 0..3 {
        hands.pass(1000);
        store.saw(sighting(true, "new name"));
        hands.pass(1000);
        store.saw(sighting(false, "new name"));
    }
    let waiting = store.known().await;
    store.close().await;
    let store = hands.open(&path).await;
    let [known] = store.known().await.try_into().unwrap();
    assert_eq!((known.first_ms, known.plugs), (Some(SEPTEMBER), 4));
    assert_eq!(known.last_ms, Some(SEPTEMBER + 6000));
    assert_eq!(known.name.as_deref(), Some("new name"));
    assert_eq!((waiting[0].plugs, waiting[0].last_ms), (4, known.last_ms));
    store.close().await;
}
