//! The page about the VM.

use std::fs;

use appliance::{
    manager::View,
    vm::{Pairing, conf, host_key::Pins, key::Key},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    rig::{CEILING, Rig},
    sample,
};

fn record(rig: &Rig) -> Option<Pairing> {
    conf::read(&rig.dir.path().join("vm.conf")).unwrap()
}

fn pair(rig: &Rig, host: &str) {
    let pairing = Pairing {
        host: host.into(),
        user: "dev".into(),
    };
    conf::write(&rig.dir.path().join("vm.conf"), &pairing).unwrap();
}

#[tokio::test]
async fn the_form_has_what_is_paired_or_chosen() {
    let rig = Rig::new(sample::empty()).await;
    let page = rig.get("/vm").await;
    assert_eq!(page.status, 200);
    let key = Key::ensure(&rig.dir.path().join("ssh")).await.unwrap();
    let line = key.authorized_keys_line().replace('"', "&quot;");
    for text in [
        "Not paired",
        "name=\"host\" value=\"\"",
        "name=\"user\" value=\"dev\"",
        &format!("echo '{line}' &gt;&gt; ~/.ssh/authorized_keys"),
    ] {
        assert!(page.body.contains(text), "{text}: {}", page.body);
    }
    assert!(!page.body.contains("/vm/disconnect"));

    rig.view.send_replace(sample::connected().into());
    let page = rig.get("/vm").await.body;
    assert!(page.contains("value=\"build-vm.local\""), "{page}");
    assert!(page.contains("/vm/disconnect"), "{page}");

    let page = rig.get("/vm?host=%22%3E%3Cb%3E&user=me").await.body;
    assert!(page.contains("value=\"&quot;&gt;&lt;b&gt;\""), "{page}");
    assert!(page.contains("value=\"me\""), "{page}");
}

#[tokio::test]
async fn machines_on_the_network_fill_the_form_by_a_link() {
    let rig = Rig::new(sample::empty()).await;
    let page = rig.get("/vm").await.body;
    for text in [
        "href=\"/vm?host=192.168.1.20&amp;user=builder\"",
        "has vm-helper 0.1.0",
        "href=\"/vm?host=fe80::1%25eth0&amp;user=dev\"",
        "&lt;script&gt;alert(1)&lt;/script&gt;\u{fffd}",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(!page.contains("<script>alert"), "{page}");
    let page = rig.get("/vm?host=fe80::1%25eth0&user=dev").await.body;
    assert!(page.contains("value=\"fe80::1%eth0\""), "{page}");
}

#[tokio::test]
async fn what_cannot_be_paired_is_said_and_kept_in_the_form() {
    let mut rig = Rig::new(sample::empty()).await;
    let cases = [
        ("host=a+b&user=dev", 422, "&quot;a b&quot; is no host"),
        ("host=vm&user=a%2Fb", 422, "&quot;a/b&quot; is no user name"),
        ("host=&user=", 422, "is no host"),
        ("host=127.0.0.1&user=me", 502, "showed no SSH host key"),
    ];
    for (fields, status, text) in cases {
        let page = rig.post_encoded("/vm/pair", fields).await;
        assert_eq!(page.status, status, "{fields}");
        assert!(page.body.contains(text), "{text}: {}", page.body);
    }
    let page = rig
        .post_encoded("/vm/pair", "host=127.0.0.1&user=me")
        .await
        .body;
    assert!(page.contains("value=\"127.0.0.1\"") && page.contains("value=\"me\""));
    assert_eq!(record(&rig), None);
    assert!(rig.commands.try_recv().is_err());
}

#[tokio::test]
async fn disconnecting_asks_first_and_says_what_remains() {
    let rig = Rig::new(sample::every_state()).await;
    pair(&rig, "build-vm.local");
    let question = rig.get("/vm/disconnect").await.body;
    for text in ["dev@build-vm.local?", "/dev/ttyUSB0", "Stay paired"] {
        assert!(question.contains(text), "{text}: {question}");
    }
    assert!(record(&rig).is_some(), "asking changes nothing");

    // The manager lets go of the devices.
    let view = rig.view.clone();
    let vm_conf = rig.dir.path().join("vm.conf");
    tokio::spawn(async move {
        while vm_conf.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        view.send_replace(View::clone(&sample::empty()).into());
    });
    let done = rig.post("/vm/disconnect").await;
    assert_eq!(done.status, 303);
    assert_eq!(done.header("location"), Some("/vm?outcome=parted"));
    assert_eq!(record(&rig), None);
    let pins = Pins::new(&rig.dir.path().join("ssh"));
    assert!(pins.keys().unwrap().is_empty());
    let page = rig.get("/vm?outcome=parted").await.body;
    assert!(page.contains("Every device was detached"), "{page}");
    assert!(page.contains("|d' ~/.ssh/authorized_keys"), "{page}");

    // Again, as by a double click or in a second tab.
    let again = rig.post("/vm/disconnect").await;
    assert_eq!(again.header("location"), Some("/vm?outcome=none"));
    assert!(
        rig.get("/vm/disconnect")
            .await
            .body
            .contains("No VM is paired")
    );
}

#[tokio::test]
async fn a_damaged_record_can_be_removed() {
    let rig = Rig::new(sample::empty()).await;
    let vm_conf = rig.dir.path().join("vm.conf");
    fs::write(&vm_conf, "nonsense\n").unwrap();
    let page = rig.post_encoded("/vm/pair", "host=vm&user=dev").await;
    assert_eq!(page.status, 422);
    assert!(page.body.contains("line 1"), "{}", page.body);
    assert_eq!(rig.post("/vm/disconnect").await.status, 303);
    assert!(!vm_conf.exists());
}

#[tokio::test]
async fn a_test_runs_and_is_shown_without_a_script() {
    let rig = Rig::new(sample::empty()).await;
    let begun = rig.post_encoded("/vm/test", "host=127.0.0.1&user=me").await;
    assert_eq!(begun.status, 303);
    let address = "/vm?host=127.0.0.1&user=me#report";
    assert_eq!(begun.header("location"), Some(address));
    let shown = async {
        loop {
            let page = rig.get("/vm?host=127.0.0.1&user=me").await.body;
            if page.contains("refuses connections") {
                return page;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let page = tokio::time::timeout(CEILING, shown).await.unwrap();
    for text in [
        "Test of me@127.0.0.1",
        "127.0.0.1 is an address",
        "sudo apt install openssh-server",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    // Live, too.
    let mut stream = rig.connect().await;
    let cookie = &rig.session().await.cookie;
    let request = format!(
        "GET /vm/events?host=127.0.0.1&user=me HTTP/1.1\r\nhost: localhost\r\ncookie: {cookie}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let read = async {
        let mut chunk = vec![0; 4096];
        while !text.contains("refuses connections") {
            let n = stream.read(&mut chunk).await.unwrap();
            text.push_str(&String::from_utf8_lossy(&chunk[..n]));
        }
    };
    tokio::time::timeout(CEILING, read).await.unwrap();
    assert!(text.contains("event: picture"), "{text}");

    let wrong = rig
        .post_encoded("/vm/test", "host=-oProxyCommand%3Dx&user=me")
        .await;
    assert_eq!(wrong.status, 422);
    assert!(
        wrong.body.contains("value=\"-oProxyCommand=x\""),
        "{}",
        wrong.body
    );
}

#[tokio::test]
async fn a_password_is_not_repeated() {
    let rig = Rig::new(sample::empty()).await;
    let fields = "host=127.0.0.1&user=me&password=hush%21hush&confirmed=SHA256%3Ax";
    let page = rig.post_encoded("/vm/key", fields).await;
    assert_eq!(page.status, 502);
    assert!(page.body.contains("refuses connections"), "{}", page.body);
    assert!(!page.body.contains("hush!hush"), "{}", page.body);
    let none = rig.post_encoded("/vm/key", "host=127.0.0.1&user=me").await;
    assert_eq!(none.status, 422);
}

#[tokio::test]
async fn pairing_from_elsewhere_is_refused() {
    let mut rig = Rig::new(sample::connected()).await;
    pair(&rig, "build-vm.local");
    for path in ["/vm/test", "/vm/key", "/vm/pair", "/vm/disconnect"] {
        for origin in ["origin: http://evil.example", "accept: */*"] {
            let line = format!("POST {path}");
            let answer = rig.request(&line, &["host: localhost", origin], "").await;
            assert_eq!(answer.status, 403, "{path} {origin}");
        }
    }
    for path in ["/vm/test", "/vm/key", "/vm/pair"] {
        assert_eq!(rig.get(path).await.status, 405, "{path}");
    }
    assert_eq!(rig.post("/vm").await.status, 405);
    let large = format!("host={}", "x".repeat(100_000));
    assert_eq!(rig.post_encoded("/vm/pair", &large).await.status, 413);
    assert_eq!(
        rig.post_encoded("/vm/pair", "host=%ff&user=%00")
            .await
            .status,
        422
    );
    assert!(record(&rig).is_some());
    assert!(rig.commands.try_recv().is_err());
}
