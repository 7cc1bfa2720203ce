//! Strangers, and peers that do not speak the protocol.

use std::time::{Duration, Instant};

use appliance::usbipd::{Event, RefusedImport};
use tokio::{
    io::AsyncWriteExt,
    time::{sleep, timeout},
};

use crate::rig::{CEILING, Rig, STRANGER, VM, VM_TOO, echoes, imported, refusal, request, to_end};

#[tokio::test]
async fn a_stranger_is_refused_before_a_byte_is_named() {
    let mut rig = Rig::new(&["1-1"]);
    let mut stream = rig.connect(STRANGER).await;
    // Sends nothing, and yet it is over.
    // A reset, or a plain close.
    assert!(to_end(&mut stream).await.unwrap_or_default().is_empty());
    assert_eq!(
        rig.event().await,
        refusal(STRANGER, RefusedImport::Stranger)
    );
    let mut stream = rig.connect(STRANGER).await;
    let _ = stream.write_all(&request("1-1")).await;
    assert!(to_end(&mut stream).await.unwrap_or_default().is_empty());
    assert_eq!(
        rig.event().await,
        refusal(STRANGER, RefusedImport::Stranger)
    );
    assert!(rig.handle.sessions().is_empty());
}

#[tokio::test]
async fn without_a_paired_vm_everybody_is_a_stranger() {
    let mut rig = Rig::new(&["1-1"]);
    rig.exports.send_modify(|exports| exports.peers.clear());
    let mut stream = rig.connect(VM).await;
    assert!(to_end(&mut stream).await.unwrap_or_default().is_empty());
    assert_eq!(rig.event().await, refusal(VM, RefusedImport::Stranger));
}

#[tokio::test]
async fn who_says_nothing_is_not_spoken_of() {
    let mut rig = Rig::new(&["1-1"]);
    let mut stream = rig.connect(VM).await;
    stream.shutdown().await.unwrap();
    assert!(to_end(&mut stream).await.unwrap().is_empty());
    let (_session, _) = rig.import("1-1").await;
    assert_eq!(rig.event().await, imported("1-1"));
}

#[tokio::test]
async fn malformed_requests_are_closed_without_an_answer() {
    let mut rig = Rig::new(&["1-1"]);
    let mut no_nul = request("1-1");
    no_nul[8..].fill(b'1');
    let mut path = request("1-1");
    path[8..16].copy_from_slice(b"../../..");
    let requests: [&[u8]; 6] = [
        b"\x01\x11\x80",
        &request("1-1")[..39],
        b"GET / HTTP/1.1\r\nHost: pi\r\n\r\n",
        b"\x01\x11\x80\x07\0\0\0\0",
        &no_nul,
        &path,
    ];
    for bytes in requests {
        let mut stream = rig.connect(VM).await;
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        // Closed with unread bytes it may be a reset.
        assert!(to_end(&mut stream).await.unwrap_or_default().is_empty());
        let event = rig.event().await;
        let Event::Refused {
            reason: RefusedImport::Malformed(_),
            ..
        } = event
        else {
            panic!("{event:?} for {bytes:?}");
        };
        // Stay below the limit of reports, which is not this test's matter.
        sleep(Duration::from_millis(210)).await;
    }
    let (_session, _) = rig.import("1-1").await;
}

#[tokio::test]
async fn a_slow_request_is_cut_off_at_the_deadline() {
    let mut rig = Rig::new(&["1-1"]);
    let start = Instant::now();
    let mut stream = rig.connect(VM).await;
    let drip = async {
        for byte in request("1-1") {
            if stream.write_all(&[byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(300)).await;
        }
    };
    let event = tokio::select! {
        () = drip => panic!("the whole request was taken"),
        event = rig.event() => event,
    };
    assert_eq!(event, refusal(VM, RefusedImport::Timeout));
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    assert!(to_end(&mut stream).await.unwrap_or_default().is_empty());
}

#[tokio::test]
async fn a_peer_gets_eight_handshakes_at_once() {
    let mut rig = Rig::new(&["1-1"]);
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(rig.connect(VM_TOO).await);
    }
    if let Ok(mut ninth) = rig.try_connect(VM_TOO).await {
        assert!(to_end(&mut ninth).await.unwrap_or_default().is_empty());
    }
    assert_eq!(rig.event().await, refusal(VM_TOO, RefusedImport::TooMany));
    // Another peer is not disturbed, and the first is admitted again when its idlers are cut off.
    let (_session, _) = rig.import("1-1").await;
    for stream in &mut idle {
        assert!(to_end(stream).await.unwrap_or_default().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_disturbs_nobody_and_is_reported_in_measure() {
    let mut rig = Rig::new(&["1-1", "1-2"]);
    let (mut before, _) = rig.import("1-1").await;
    assert_eq!(rig.event().await, imported("1-1"));
    let addr = rig.addr;
    let storm = tokio::spawn(async move {
        let mut idle = Vec::new();
        for n in 0..1000u16 {
            let from = [STRANGER, VM_TOO][usize::from(n % 2)];
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
            if let Ok(mut stream) = socket.connect(addr).await {
                if n % 3 == 0 {
                    let _ = stream.write_all(&[0xff; 64]).await;
                }
                if n % 5 == 0 {
                    idle.push(stream);
                }
            }
        }
        idle
    });
    let (mut during, _) = rig.import("1-2").await;
    for stream in [&mut before, &mut during] {
        echoes(stream).await;
    }
    let _idle = timeout(CEILING, storm).await.unwrap().unwrap();
    for stream in [&mut before, &mut during] {
        echoes(stream).await;
    }
    let mut reported = 0;
    while let Ok(Event::Refused { .. } | Event::Imported { .. }) = rig.events.try_recv() {
        reported += 1;
    }
    assert!(reported < 200, "{reported} events");
    assert!(rig.handle.unreported_refusals() > 300);
    assert_eq!(rig.handle.sessions().len(), 2);
}
