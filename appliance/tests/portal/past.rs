//! A made-up history.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use appliance::history::{AttachDetail, Event, Kind, Options, Sighting, Stamp, Store, Subject};
use protocol::line::Timings;

use crate::sample;

/// A day in the life of a Pi.
pub fn history() -> Store {
    let clock = Arc::new(AtomicI64::new(0));
    let hand = Arc::clone(&clock);
    let options = Options {
        boot_id: "b1".into(),
        // Set after a minute.
        now: Arc::new(move || {
            let mono_ms = hand.load(Ordering::Relaxed);
            let boot_ms = if mono_ms < 60_000 {
                0
            } else {
                1_798_707_600_000
            };
            Stamp {
                mono_ms,
                unix_ms: boot_ms + mono_ms,
                set: boot_ms > 0,
            }
        }),
        ..Options::default()
    };
    let store = Store::in_memory(options);
    let at = |seconds: i64, event: Event| {
        clock.store(seconds * 1000, Ordering::Relaxed);
        store.append(event);
    };
    let device = |port, name: &str| Subject::of(&sample::device(port, name).facts);
    let board = device("1-1.2", "CP2102N USB to UART Bridge Controller");
    let hub = device("1-1", "<script>alert(1)</script>\u{202e}gnp.exe");
    let about = |kind, device: &Subject| Event::new(kind).about(device.clone());
    at(4, Event::new(Kind::Started).saying("version 0.1.0"));
    at(5, about(Kind::Found, &hub).saying("left alone: a hub"));
    at(70, Event::new(Kind::SignIn).by([192, 0, 2, 20].into()));
    at(
        75,
        Event::new(Kind::Pairing).saying("paired with dev@build-vm.local"),
    );
    at(
        78,
        Event::new(Kind::SessionUp).saying("build-vm, vm-helper 0.1.0"),
    );
    at(3600, about(Kind::Plugged, &board));
    at(3600, about(Kind::Bound, &board));
    let attached = AttachDetail {
        ttys: vec!["/dev/ttyUSB0".into()],
        port: 3,
        plug_to_tty_ms: Some(418),
        timings: Some(Timings {
            import_ms: 21.4,
            attach_ms: 0.6,
            enumerate_ms: 180.2,
            tty_ms: 95.0,
        }),
    };
    let attached = Event {
        attached: Some(attached),
        ..about(Kind::Attached, &board)
    };
    at(3601, attached);
    for second in 0..500 {
        let event = Event::new(Kind::Refused).by([192, 0, 2, 99].into());
        at(4000 + second, event.saying("only the paired VM may import"));
    }
    at(
        5000,
        Event::new(Kind::SessionLost).saying("build-vm.local does not answer"),
    );
    at(
        5020,
        Event::new(Kind::SessionUp).saying("build-vm, vm-helper 0.1.0"),
    );
    at(
        6000,
        Event {
            device: Some(board.clone()),
            ..Event::new(Kind::Action).saying("detach")
        },
    );
    at(6000, about(Kind::Detached, &board).saying("held back"));
    at(
        7000,
        about(Kind::Failed, &hub).saying("the VM has no driver for this device"),
    );
    at(8000, about(Kind::Unplugged, &board));
    for device in &sample::every_state().devices {
        store.saw(Sighting::of(&device.facts, true));
    }
    store
}
