//! Pairing from the VM in one line: a person makes it, a machine uses it.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

use appliance::{
    manager::{Command as Wish, View},
    vm::{Pairing, conf, host_key::Pins},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    rig::{Answer, PACKAGES, Rig},
    sample,
};

const HOST: &str = "host: 127.0.0.1:8080";

/// An SSH server with a host key of its own; nobody can log in.
struct Sshd {
    dir: TempDir,
    port: u16,
    server: Child,
}

impl Sshd {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key)
            .status();
        assert!(made.unwrap().success());
        // Free a moment ago; sshd cannot choose one itself.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        // sshd's own empty directory, which the service unit makes elsewhere.
        let _ = fs::create_dir_all("/run/sshd");
        let text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nStrictModes no\nUsePAM no\nPidFile none\n",
            key.display()
        );
        fs::write(dir.path().join("config"), text).unwrap();
        let server = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(dir.path().join("config"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let listens = async {
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(super::rig::CEILING * 3, listens)
            .await
            .unwrap();
        Self { dir, port, server }
    }

    fn host_key(&self) -> String {
        fs::read_to_string(self.dir.path().join("key.pub")).unwrap()
    }

    async fn rig(&self, view: View) -> Rig {
        Rig::with_ssh_port(view, self.port).await
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn record(rig: &Rig) -> Option<Pairing> {
    conf::read(&rig.dir.path().join("vm.conf")).unwrap()
}

/// Makes a line with these fields; its token.
async fn token(rig: &Rig, fields: &[(&str, &str)]) -> String {
    let answer = rig.post_form("/vm/join", fields).await;
    assert_eq!(answer.status, 303, "{}", answer.body);
    let page = rig.get(answer.header("location").unwrap()).await.body;
    let (_, rest) = page.split_once("/join/").unwrap();
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
    rest[..end.unwrap()].to_owned()
}

fn report(key: &str) -> String {
    json!({"user": "dev", "host_name": "vm", "version": "0.1.0", "host_keys": [key], "colour": 1})
        .to_string()
}

async fn post(rig: &Rig, token: &str, body: &str) -> Answer {
    let headers = [
        HOST,
        "origin: http://127.0.0.1:8080",
        "content-type: application/json",
    ];
    rig.stranger(&format!("POST /join/{token}"), &headers, body)
        .await
}

async fn get(rig: &Rig, path: &str) -> Answer {
    rig.stranger(&format!("GET {path}"), &[HOST], "").await
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{}", answer.body))
}

#[tokio::test]
async fn a_machine_that_has_the_line_is_paired_once() {
    let sshd = Sshd::new().await;
    let mut rig = sshd.rig(sample::empty()).await;
    let token = token(&rig, &[("user", "dev"), ("pi", "192.168.1.7:8080")]).await;
    let page = rig.get("/vm/join").await.body;
    for text in [
        "s=$(curl -fsSL 'http://192.168.1.7:8080/join/",
        "| sha256sum | grep -q '^",
        "| sudo sh",
        "Waiting for the VM",
        "data-refresh",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }

    // Looking uses nothing up.
    for _ in 0..2 {
        let script = get(&rig, &format!("/join/{token}")).await;
        assert_eq!(script.status, 200);
        assert!(script.body.starts_with("#!/bin/sh\n"), "{}", script.body);
        assert!(script.body.contains("pi='192.168.1.7:8080'"));
        assert!(
            script
                .body
                .contains("84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882")
        );
    }
    assert!(
        rig.get("/vm/join")
            .await
            .body
            .contains("has fetched the script")
    );
    let invitation = json_of(&get(&rig, &format!("/join/{token}/invitation")).await);
    assert!(
        invitation["key"]
            .as_str()
            .unwrap()
            .starts_with("ssh-ed25519 AAAA")
    );
    assert_eq!(invitation["user"], "dev");

    let answer = post(&rig, &token, &report(&sshd.host_key())).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let joined = json_of(&answer);
    assert_eq!(joined["host"], "127.0.0.1");
    let expected = Pairing {
        host: "127.0.0.1".into(),
        user: "dev".into(),
    };
    assert_eq!(record(&rig), Some(expected));
    let pins = Pins::new(&rig.dir.path().join("ssh"));
    assert_eq!(joined["host_keys"], json!(pins.fingerprints().unwrap()));
    assert_eq!(rig.commands.recv().await, Some(Wish::AttachAll));

    let page = rig.get("/vm/join").await.body;
    for text in [
        "Paired with dev@127.0.0.1",
        joined["key"].as_str().unwrap(),
        joined["host_keys"][0].as_str().unwrap(),
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    // As soon as the session is up, the page is green and asks no more.
    assert!(page.contains("data-refresh"), "{page}");
    rig.view.send_replace(sample::connected().into());
    let page = rig.get("/vm/join").await.body;
    assert!(page.contains("state green\">Connected"), "{page}");
    assert!(!page.contains("data-refresh"), "{page}");

    let again = post(&rig, &token, &report(&sshd.host_key())).await;
    assert_eq!(again.status, 410);
    assert!(json_of(&again)["error"].as_str().unwrap().contains("used"));
    let script = get(&rig, &format!("/join/{token}")).await;
    assert_eq!(script.status, 200);
    assert!(script.body.contains("exit 1"), "{}", script.body);
}

#[tokio::test]
async fn a_machine_that_cannot_be_reached_may_try_again() {
    let sshd = Sshd::new().await;
    let rig = sshd.rig(sample::empty()).await;
    let token = token(&rig, &[]).await;
    // Another machine than the one that answers at port 22.
    let other = Sshd::new().await;
    let refused = post(&rig, &token, &report(&other.host_key())).await;
    assert_eq!(refused.status, 409, "{}", refused.body);
    let error = json_of(&refused)["error"].as_str().unwrap().to_owned();
    assert!(error.contains("another SSH host key"), "{error}");
    assert_eq!(record(&rig), None);
    assert!(rig.get("/vm/join").await.body.contains(&error));

    for nonsense in ["", "{}", "[]", &report("no key"), &"x".repeat(15_000)] {
        let refused = post(&rig, &token, nonsense).await;
        assert_eq!(refused.status, 422, "{}", refused.body);
    }
    let huge = "x".repeat(20_000);
    assert_eq!(post(&rig, &token, &huge).await.status, 413);
    let hostile = report(&sshd.host_key()).replace("dev", "-oProxyCommand=x");
    assert_eq!(post(&rig, &token, &hostile).await.status, 422);
    assert_eq!(record(&rig), None);

    let answer = post(&rig, &token, &report(&sshd.host_key())).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn another_vms_pairing_ends_only_when_that_was_confirmed() {
    let sshd = Sshd::new().await;
    let rig = sshd.rig(sample::connected()).await;
    let old = Pairing {
        host: "build-vm.local".into(),
        user: "dev".into(),
    };
    conf::write(&rig.dir.path().join("vm.conf"), &old).unwrap();
    let page = rig.get("/vm/join").await.body;
    assert!(page.contains("end the pairing with"), "{page}");
    let first = token(&rig, &[]).await;
    let refused = post(&rig, &first, &report(&sshd.host_key())).await;
    assert_eq!(refused.status, 409);
    assert!(refused.body.contains("paired with dev@build-vm.local"));
    assert_eq!(record(&rig), Some(old));

    let second = token(&rig, &[("replaces", "dev@build-vm.local")]).await;
    assert_ne!(first, second);
    let late = post(&rig, &first, &report(&sshd.host_key())).await;
    assert_eq!(late.status, 410, "replaced by the second");
    let answer = post(&rig, &second, &report(&sshd.host_key())).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(record(&rig).unwrap().host, "127.0.0.1");

    // The same VM again, as for an upgrade: its pairing stays, and nothing has to be confirmed.
    let third = token(&rig, &[]).await;
    let answer = post(&rig, &third, &report(&sshd.host_key())).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn the_same_vm_keeps_its_name() {
    let sshd = Sshd::new().await;
    let rig = sshd.rig(sample::empty()).await;
    let first = token(&rig, &[]).await;
    post(&rig, &first, &report(&sshd.host_key())).await;
    let named = Pairing {
        host: "localhost".into(),
        user: "dev".into(),
    };
    conf::write(&rig.dir.path().join("vm.conf"), &named).unwrap();
    let second = token(&rig, &[]).await;
    let answer = post(&rig, &second, &report(&sshd.host_key())).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(record(&rig), Some(named));
}

#[tokio::test]
async fn wrong_tokens_and_fields_open_nothing() {
    let rig = Rig::new(sample::empty()).await;
    let real = token(&rig, &[]).await;
    for wrong in ["x", "%2e%2e", &real[1..], &real.to_uppercase()] {
        let script = get(&rig, &format!("/join/{wrong}")).await;
        assert_eq!(script.status, 200, "{wrong}");
        assert!(script.body.contains("exit 1"), "{}", script.body);
        let invitation = get(&rig, &format!("/join/{wrong}/invitation")).await;
        assert_eq!(invitation.status, 410);
        assert_eq!(post(&rig, wrong, "{}").await.status, 410);
    }
    for _ in 0..20 {
        get(&rig, "/join/x").await;
    }
    assert_eq!(get(&rig, "/join/x").await.status, 429);
    let script = get(&rig, &format!("/join/{real}")).await;
    assert!(script.body.contains("vm-helper join"), "{}", script.body);

    for fields in [
        [("user", "a b"), ("pi", "")],
        [("user", ""), ("pi", "evil.example:80")],
        [("user", ""), ("pi", "x'; reboot")],
    ] {
        let answer = rig.post_form("/vm/join", &fields).await;
        assert_eq!(answer.status, 422, "{fields:?}");
    }
    // The line that there was is still good.
    let again = get(&rig, &format!("/join/{real}")).await;
    assert_eq!(again.body, script.body);

    assert_eq!(get(&rig, "/vm/join").await.status, 303, "signed out");
    let signed_out = rig.stranger_form("/vm/join", &[]).await;
    assert_ne!(signed_out.status, 303);
    let foreign = ["host: evil.example"];
    let rebound = rig
        .stranger(&format!("GET /join/{real}"), &foreign, "")
        .await;
    assert_eq!(rebound.status, 403);
}

#[tokio::test]
async fn the_line_names_the_pi_as_the_browser_does_where_that_leads_here() {
    let rig = Rig::new(sample::empty()).await;
    let shown = async |called: &str| {
        let host = format!("host: {called}");
        rig.request("GET /vm/join", &[&host], "").await.body
    };
    for (called, pi) in [
        ("usbip-pi.local:8080", "usbip-pi.local:8080"),
        ("pi.lab.example", "pi.lab.example:80"),
    ] {
        let page = shown(called).await;
        let value = format!("name=\"pi\" value=\"{pi}\"");
        assert!(page.contains(&value), "{page}");
    }
    // No address of this machine: a port is forwarded from there. Its own are offered.
    for called in ["localhost:1080", "192.0.2.99:1080", "[2001:db8::7]:1080"] {
        let page = shown(called).await;
        assert!(page.contains("name=\"pi\" value=\""), "{page}");
        assert!(!page.contains(&format!("value=\"{called}")), "{page}");
    }
}

#[tokio::test]
async fn without_packages_there_is_no_line() {
    let rig = Rig::new(sample::empty()).await;
    for (name, _) in PACKAGES {
        fs::remove_file(rig.packages.path().join(name)).unwrap();
    }
    let answer = rig.post_form("/vm/join", &[]).await;
    assert_eq!(answer.status, 422);
    assert!(answer.body.contains("carries no packages"));
}
