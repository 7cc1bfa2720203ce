//! What people and programs see.

use std::sync::atomic::Ordering;

use appliance::{manager::Command, vm::FailureKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    rig::{CEILING, Rig},
    sample,
};

#[tokio::test]
async fn the_dashboard_shows_every_state() {
    let rig = Rig::new(sample::every_state()).await;
    let page = rig.get("/").await;
    assert_eq!(page.status, 200);
    for text in [
        "dev@build-vm.local",
        "Connected",
        "3 used, 5 free",
        "line 3 of &lt;appliance.conf&gt; is wrong",
        "CP2102N USB to UART Bridge Controller",
        "Silicon Labs",
        "7c98a2b0e11f",
        "10c4:ea60",
        "1-1.4",
        "/dev/ttyUSB1",
        "/dev/serial/by-id/usb-FTDI_Dual_RS232-HS_FT7K2Q-if01-port0",
        "ftdi_sio",
        "418 ms",
        "state green\">Attached",
        "state yellow\">VM not answering",
        "state yellow\">Held back",
        "state yellow\">Waiting for the VM",
        "state yellow\">Attaching",
        "state grey\">Left alone",
        "a network adapter: giving it away could cut the Pi off",
        "state red\">Failed",
        "the VM has no driver for this device",
        "sudo apt install linux-modules-extra-$(uname -r)",
        "Tried again in 42 s.",
        "Tried again now.",
        "Attach all",
    ] {
        assert!(page.body.contains(text), "{text}: {}", page.body);
    }
}

#[tokio::test]
async fn empty_states_say_what_to_do() {
    let rig = Rig::new(sample::empty()).await;
    let page = rig.get("/").await.body;
    assert!(page.contains("Plug a USB serial board"), "{page}");
    assert!(page.contains("<a href=\"/vm\">Pair one</a>"), "{page}");
}

#[tokio::test]
async fn each_failure_shows_its_sentence_and_remedy() {
    let rig = Rig::new(sample::empty()).await;
    let kinds = [
        (FailureKind::Config, "Pairing file is wrong"),
        (FailureKind::Key, "Pi’s key is missing"),
        (FailureKind::Name, "Name not found"),
        (FailureKind::Unreachable, "VM unreachable"),
        (FailureKind::HostKeyUnknown, "VM not confirmed"),
        (FailureKind::HostKeyChanged, "Not the same VM"),
        (FailureKind::Login, "Login refused"),
        (FailureKind::Helper, "vm-helper missing"),
        (FailureKind::Sudo, "sudo refused"),
        (FailureKind::Lost, "Connection lost"),
    ];
    for (kind, heading) in kinds {
        let view = sample::down(kind, "it is <broken>", Some("mend it & wait"));
        rig.view.send_replace(view.into());
        let page = rig.get("/").await.body;
        for text in [heading, "it is &lt;broken&gt;", "mend it &amp; wait"] {
            assert!(page.contains(text), "{text}: {page}");
        }
    }
}

#[tokio::test]
async fn hostile_texts_are_shown_harmlessly() {
    let mut view = sample::every_state();
    let long = "W".repeat(126);
    let device = &mut view.devices[3];
    device.facts.product_name = Some("\"'><script>alert(1)</script>\u{202e}fdp\u{2066}".into());
    device.facts.manufacturer = Some("a\r\n\r\n<img src=x onerror=alert(1)>\u{0}\u{1b}[2J".into());
    device.facts.serial = Some(long.clone());
    let rig = Rig::new(view).await;
    let page = rig.get("/").await.body;
    assert!(!page.contains("<script>alert"), "{page}");
    assert!(!page.contains("<img"), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;\u{fffd}fdp\u{fffd}"));
    assert!(page.contains(&long));
    let invisible = ['\u{202e}', '\u{2066}', '\r', '\u{0}', '\u{1b}'];
    assert!(!page.contains(invisible), "{page}");
    // Programs get what the device sent.
    let status: serde_json::Value =
        serde_json::from_str(&rig.get("/api/v1/status").await.body).unwrap();
    let name = status["devices"][3]["product_name"].as_str().unwrap();
    assert!(name.ends_with("\u{202e}fdp\u{2066}"));
}

#[tokio::test]
async fn the_status_for_programs() {
    let rig = Rig::new(sample::every_state()).await;
    let answer = rig.get("/api/v1/status").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let status: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(status["session"]["state"], "up");
    assert_eq!(status["pairing"]["user"], "dev");
    assert_eq!(status["vhci_ports"], serde_json::json!([5, 8]));
    let dual = &status["devices"][3];
    assert_eq!(dual["busid"], "1-1.3");
    assert_eq!(dual["state"], "attached");
    assert_eq!(dual["attachment"]["ttys"][1]["node"], "/dev/ttyUSB1");
    assert_eq!(status["devices"][7]["next_try_ms"], 42_000);
}

#[tokio::test]
async fn health_follows_the_manager() {
    let rig = Rig::new(sample::empty()).await;
    let answer = rig.get("/healthz").await;
    assert_eq!((answer.status, answer.body.trim()), (200, "ok"));
    rig.alive.store(false, Ordering::Relaxed);
    assert_eq!(rig.get("/healthz").await.status, 503);
}

#[tokio::test]
async fn attach_all_leads_back_with_its_outcome() {
    let mut rig = Rig::new(sample::connected()).await;
    let answer = rig.post("/attach-all").await;
    assert_eq!(answer.status, 303);
    assert_eq!(rig.commands.recv().await, Some(Command::AttachAll));
    let page = rig.get(answer.header("location").unwrap()).await;
    assert!(page.body.contains("Every serial device is being attached"));

    let down = sample::down(FailureKind::Unreachable, "nothing answers", None);
    rig.view.send_replace(down.into());
    let answer = rig.post("/attach-all").await;
    assert_eq!(rig.commands.recv().await, Some(Command::AttachAll));
    let page = rig.get(answer.header("location").unwrap()).await;
    assert!(page.body.contains("The VM does not answer now"));

    rig.view.send_replace(sample::empty().into());
    let answer = rig.post("/attach-all").await;
    let page = rig.get(answer.header("location").unwrap()).await;
    assert!(page.body.contains("pair one first"));
    assert!(rig.commands.try_recv().is_err());

    rig.view.send_replace(sample::connected().into());
    rig.commands.close();
    let answer = rig.post("/attach-all").await;
    let page = rig.get(answer.header("location").unwrap()).await;
    assert!(page.body.contains("did not take the order"));
}

#[tokio::test]
async fn the_first_load_is_small_and_needs_nothing_from_elsewhere() {
    let rig = Rig::new(sample::every_state()).await;
    let page = rig.get("/").await;
    let mut bytes = page.head.len() + page.body.len();
    let mut requests = 1;
    for part in page.body.split('"').filter(|p| p.starts_with("/assets/")) {
        let asset = rig.get(part).await;
        assert_eq!(asset.status, 200, "{part}");
        assert!(asset.header("cache-control").unwrap().contains("immutable"));
        bytes += asset.head.len() + asset.body.len();
        requests += 1;
    }
    // And one for the events.
    assert_eq!(requests + 1, 4);
    assert!(bytes < 40_000, "{bytes}");
    assert!(!page.body.contains("src=\"http") && !page.body.contains("href=\"http"));
    assert!(!page.body.contains("<style") && !page.body.contains(" style="));
}

#[tokio::test]
async fn the_portal_stops_when_told_even_with_readers() {
    let rig = Rig::new(sample::empty()).await;
    let cookie = rig.session().await.cookie.clone();
    let mut stream = rig.connect().await;
    let request = format!("GET /events HTTP/1.1\r\nhost: localhost\r\ncookie: {cookie}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    // A reader from here on; one that is only about to ask may be reset instead.
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let reader = tokio::spawn(async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    rig.stop.send(()).unwrap();
    tokio::time::timeout(CEILING, rig.served)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    tokio::time::timeout(CEILING, reader)
        .await
        .unwrap()
        .unwrap();
}
