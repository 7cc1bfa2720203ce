//! Sessions from hand-over to hang-up.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use appliance::{
    usb::StubStatus,
    usbipd::{EndError, Event},
};
use protocol::{
    DevId,
    wire::{Request, Status},
};
use socket2::SockRef;
use tokio::{
    io::AsyncWriteExt as _,
    time::{sleep, timeout},
};

use crate::{
    host::{Host, busid, device},
    rig::{CEILING, Rig, VM, busy, echoes, exports, hung_up, imported, refusal, to_end},
};

#[tokio::test]
async fn a_close_and_a_reset_are_noticed_at_once() {
    let mut rig = Rig::new(&["1-1"]);
    for reset in [false, true] {
        let (stream, _) = rig.import("1-1").await;
        assert_eq!(rig.event().await, imported("1-1"));
        if reset {
            SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
        let start = Instant::now();
        drop(stream);
        assert_eq!(rig.event().await, hung_up("1-1"));
        let took = start.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
        // The next import waits for the device's reset; the first would have got it just as well.
    }
}

#[tokio::test]
async fn a_live_session_survives_a_duplicate_import() {
    let mut rig = Rig::new(&["1-1"]);
    let (_session, _) = rig.import("1-1").await;
    assert_eq!(rig.event().await, imported("1-1"));
    let start = Instant::now();
    assert_eq!(rig.refused("1-1").await, Status::DeviceBusy);
    assert!(
        start.elapsed() > Duration::from_secs(1),
        "the peer was not asked"
    );
    assert_eq!(rig.event().await, refusal(VM, busy("1-1")));
    let socket = rig.host.socket("1-1");
    let keepalive = SockRef::from(&socket).tcp_keepalive_time().unwrap();
    assert_eq!(keepalive, Duration::from_secs(10), "not as before");
    assert_eq!(rig.handle.sessions().len(), 1);
}

#[tokio::test]
async fn the_sockets_carry_the_grace_time() {
    let rig = Rig::new(&["1-1"]);
    let (_session, _) = rig.import("1-1").await;
    let socket = rig.host.socket("1-1");
    let socket = SockRef::from(&socket);
    let seconds = |n| Duration::from_secs(n);
    assert!(socket.tcp_nodelay().unwrap());
    assert!(socket.keepalive().unwrap());
    assert!(!socket.nonblocking().unwrap());
    assert_eq!(socket.read_timeout().unwrap(), None);
    assert_eq!(socket.write_timeout().unwrap(), None);
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(seconds(30)));
    assert_eq!(socket.tcp_keepalive_time().unwrap(), seconds(10));
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), seconds(5));
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);

    rig.exports
        .send_modify(|exports| exports.grace = seconds(5));
    let changed = async {
        while socket.tcp_user_timeout().unwrap() != Some(seconds(5)) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(CEILING, changed).await.unwrap();
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), seconds(1));
}

#[tokio::test]
async fn the_manager_ends_the_session_it_means() {
    let mut rig = Rig::new(&["1-1"]);
    let (_session, _) = rig.import("1-1").await;
    assert_eq!(rig.event().await, imported("1-1"));
    let other = rig
        .handle
        .end_session(&busid("1-1"), DevId::new(1, 99))
        .await;
    assert!(matches!(other, Err(EndError::Over(_))), "{other:?}");
    let devid = device("1-1").devid;
    rig.handle.end_session(&busid("1-1"), devid).await.unwrap();
    assert_eq!(rig.event().await, hung_up("1-1"));
    // Waits for the device's reset.
    let (_session, _) = rig.import("1-1").await;
    assert_eq!(rig.event().await, imported("1-1"));
}

#[tokio::test]
async fn a_vm_that_has_booted_since_gets_its_devices_back_at_once() {
    let mut rig = Rig::new(&["1-1"]);
    let (_session, _) = rig.import("1-1").await;
    assert_eq!(rig.event().await, imported("1-1"));
    sleep(Duration::from_millis(3500)).await;
    let listed = async |request: Request| {
        let mut stream = rig.connect(VM).await;
        stream.write_all(&request.encode()).await.unwrap();
        to_end(&mut stream).await.unwrap()[11]
    };
    // A live session is left alone, whoever asks.
    assert_eq!(listed(Request::Devlist).await, 0);
    assert_eq!(listed(Request::DevlistAfterBoot(60)).await, 0);
    assert_eq!(listed(Request::DevlistAfterBoot(1)).await, 1);
    assert_eq!(rig.event().await, hung_up("1-1"));
    let (_session, _) = rig.import("1-1").await;
    assert_eq!(rig.event().await, imported("1-1"));
}

#[tokio::test]
async fn inherited_sessions_are_kept_watched_and_ended_by_the_manager_alone() {
    let host = Host::new(&["1-1", "1-2"]);
    host.set_status("1-1", Some(StubStatus::Used));
    host.set_status("1-2", Some(StubStatus::Used));
    let mut rig = Rig::with(Arc::clone(&host), exports(&["1-1", "1-2"]), 64);
    assert_eq!(rig.refused("1-1").await, Status::DeviceBusy);
    assert_eq!(rig.event().await, refusal(VM, busy("1-1")));
    assert_eq!(rig.handle.inherited().len(), 2);

    // It ends by itself.
    host.set_status("1-2", Some(StubStatus::Available));
    assert_eq!(rig.event().await, hung_up("1-2"));

    // The manager ends it, and an import takes its place at once.
    let devid = device("1-1").devid;
    rig.handle.end_session(&busid("1-1"), devid).await.unwrap();
    let (_session, _) = rig.import("1-1").await;
    assert_eq!(rig.event().await, hung_up("1-1"));
    assert_eq!(rig.event().await, imported("1-1"));
    assert!(rig.handle.inherited().is_empty());
}

#[tokio::test]
async fn a_manager_that_lags_loses_no_session_and_sees_them_in_order() {
    let host = Host::new(&["1-1"]);
    let mut rig = Rig::with(host, exports(&["1-1"]), 1);
    for _ in 0..4 {
        let (_session, _) = rig.import("1-1").await;
    }
    let (_last, _) = rig.import("1-1").await;
    for _ in 0..4 {
        assert_eq!(rig.event().await, imported("1-1"));
        assert_eq!(rig.event().await, hung_up("1-1"));
    }
    assert_eq!(rig.event().await, imported("1-1"));
    assert!(
        timeout(Duration::from_millis(200), rig.events.recv())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn sessions_outlive_the_server() {
    let mut rig = Rig::new(&["1-1"]);
    let (mut session, _) = rig.import("1-1").await;
    assert!(matches!(rig.event().await, Event::Imported { .. }));
    let host = Arc::clone(&rig.host);
    drop(rig);
    let next = Rig::with(host, exports(&["1-1"]), 64);
    assert_eq!(next.refused("1-1").await, Status::DeviceBusy);
    echoes(&mut session).await;
}
