//! Test Connection against a real sshd.

use std::{fs, sync::Arc};

use appliance::vm::{
    Pairer, Pairing, conf,
    diagnosis::{Report, State, TooMany, Trust},
};

use super::bed::{Bed, CEILING, eventually, user};

/// What the helper answers to a check, once.
const CHECKS: &str = r#"
[ "$SSH_ORIGINAL_COMMAND" = "usb-event-handler check" ] || exit 2
echo "Welcome to this VM"
cat DIR/checks
"#;
const GOOD: &str = r#"{"re":"check","checks":[
{"id":"version","state":"ok","finding":"vm-helper 0.0.9"},
{"id":"root","state":"ok","finding":"the sudo rule is in place for: dev"},
{"id":"vhci","state":"failed","finding":"this kernel lacks the module vhci_hcd","remedy":"apt install x (then reboot)","command":"sudo apt install x"},
{"id":"pi_conf","state":"failed","finding":"/etc/usbip/pi.conf names no Pi","remedy":"write it"},
{"id":"pi_not_paired","state":"failed","finding":"it closed the connection"},
{"id":"brltty","state":"warning","finding":"brltty runs <b>","remedy":"systemctl mask --now brltty"},
{"id":"ports","state":"ok","finding":"8 of 8 vhci ports are free"},
{"id":"something_new","state":"ok","finding":"a newer helper knows more","colour":"blue"}]}"#;

fn target(host: &str) -> Pairing {
    Pairing {
        host: host.into(),
        user: user(),
    }
}

fn pairer(bed: &Bed) -> Pairer {
    Pairer::new(bed.config(), Arc::new(|| {}))
}

fn checks(bed: &Bed, answer: &str) {
    bed.helper(CHECKS);
    fs::write(bed.path("checks"), answer.replace('\n', "") + "\n").unwrap();
}

fn unpair(bed: &Bed) {
    conf::remove(&bed.path("vm.conf")).unwrap();
    bed.pins.forget().unwrap();
}

/// Tests and waits for the end.
async fn examine(pairer: &Pairer, host: &str) -> Arc<Report> {
    let target = target(host);
    pairer.diagnoses.start(target.clone()).unwrap();
    finished(pairer, &target).await
}

async fn finished(pairer: &Pairer, target: &Pairing) -> Arc<Report> {
    let mut news = pairer.diagnoses.news();
    let search = async {
        loop {
            if let Some(report) = pairer.diagnoses.latest(target).filter(|r| r.done) {
                return report;
            }
            news.changed().await.unwrap();
        }
    };
    tokio::time::timeout(CEILING, search).await.unwrap()
}

fn states(report: &Report) -> Vec<(&str, State)> {
    let findings = report.findings.iter();
    findings.map(|f| (f.id.as_str(), f.state)).collect()
}

#[tokio::test]
async fn every_step_of_the_way_is_shown_for_a_vm_that_is_not_paired() {
    let bed = Bed::new().await;
    unpair(&bed);
    checks(&bed, GOOD);
    let pairer = pairer(&bed);
    let report = examine(&pairer, "127.0.0.1").await;
    assert_eq!(
        states(&report),
        [
            ("key", State::Ok),
            ("name", State::Ok),
            ("ssh", State::Ok),
            ("host_key", State::Warning),
            ("login", State::Ok),
            ("helper", State::Warning),
            ("root", State::Ok),
            ("vhci", State::Failed),
            ("pi_conf", State::Failed),
            ("pi", State::Ok),
            ("brltty", State::Warning),
            ("ports", State::Ok),
            ("something_new", State::Ok),
        ],
        "{report:?}"
    );
    let key = bed.host_key("host_key");
    assert_eq!(report.shown, std::slice::from_ref(&key));
    assert_eq!(report.trust, Trust::New);
    assert!(!report.is_good() && !report.key_refused);
    let find = |id: &str| report.findings.iter().find(|f| f.id == id).unwrap();
    assert!(find("host_key").sentence.contains(&key.fingerprint()));
    assert!(find("helper").sentence.contains("0.0.9 is older"));
    assert_eq!(find("vhci").command.as_deref(), Some("sudo apt install x"));
    assert_eq!(
        find("pi_conf").command.as_deref(),
        Some("echo 'DEFAULT_PI_HOST=127.0.0.1' | sudo tee -a /etc/usbip/pi.conf")
    );
    // It leaves nothing behind.
    let left = fs::read_dir(bed.path("c")).unwrap().count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_paired_vm_is_tested_beside_its_session() {
    let bed = Bed::new().await;
    let (_link, mut events) = bed.link();
    events.up().await;
    checks(&bed, GOOD);
    let helper = bed.helper_pid();
    let pairer = pairer(&bed);
    let report = examine(&pairer, "127.0.0.1").await;
    assert_eq!(report.trust, Trust::Pinned);
    let find = |id: &str| report.findings.iter().find(|f| f.id == id).unwrap();
    assert_eq!(find("host_key").state, State::Ok);
    // Paired, and yet not let in.
    assert_eq!(find("pi").state, State::Failed);
    assert_eq!(bed.helper_pid(), helper);
    assert_eq!(bed.masters().len(), 1, "the kept session lives");
}

#[tokio::test]
async fn a_changed_host_key_is_an_alarm_and_nothing_is_sent() {
    let bed = Bed::new().await;
    bed.make_host_key("other");
    bed.pins.pin(&[bed.host_key("other")]).unwrap();
    checks(&bed, GOOD);
    let pairer = pairer(&bed);
    let report = examine(&pairer, "127.0.0.1").await;
    assert_eq!(report.trust, Trust::Alarm);
    let last = report.findings.last().unwrap();
    assert_eq!((last.id.as_str(), last.state), ("host_key", State::Failed));
    for name in ["host_key", "other"] {
        let fingerprint = bed.host_key(name).fingerprint();
        assert!(last.sentence.contains(&fingerprint), "{}", last.sentence);
    }
}

#[tokio::test]
async fn what_fails_says_what_mends_it() {
    let mut bed = Bed::new().await;
    unpair(&bed);
    let pairer = pairer(&bed);
    let last = |report: &Arc<Report>| {
        let last = report.findings.last().unwrap().clone();
        assert_eq!(last.state, State::Failed);
        (last.id, last.sentence, last.command.unwrap_or_default())
    };

    let report = examine(&pairer, "no-such-host.invalid").await;
    let (id, sentence, _) = last(&report);
    assert_eq!(id, "name");
    assert!(sentence.contains("no-such-host.invalid"), "{sentence}");

    fs::write(bed.path("authorized_keys"), "").unwrap();
    let report = examine(&pairer, "127.0.0.1").await;
    let (id, _, command) = last(&report);
    assert!(report.key_refused);
    assert_eq!(id, "login");
    assert!(
        command.contains(&bed.key.authorized_keys_line())
            && command.contains(">> ~/.ssh/authorized_keys"),
        "{command}"
    );

    fs::write(bed.path("authorized_keys"), bed.key.public_key()).unwrap();
    let (id, sentence, _) = last(&examine(&pairer, "127.0.0.1").await);
    assert_eq!(id, "helper");
    assert!(sentence.contains("not installed"), "{sentence}");

    bed.authorize();
    checks(
        &bed,
        r#"{"error":{"kind":"not_permitted","message":"a password is required"}}"#,
    );
    let (id, sentence, command) = last(&examine(&pairer, "127.0.0.1").await);
    assert_eq!(id, "root");
    assert!(sentence.contains("a password is required"), "{sentence}");
    assert_eq!(command, format!("sudo usermod -aG usbip {}", user()));

    bed.kill_server();
    let (id, sentence, command) = last(&examine(&pairer, "127.0.0.1").await);
    assert_eq!(id, "ssh");
    assert!(sentence.contains("refuses connections"), "{sentence}");
    assert!(command.contains("openssh-server"), "{command}");
}

#[tokio::test]
async fn a_second_click_joins_and_too_many_are_refused() {
    let bed = Bed::new().await;
    unpair(&bed);
    bed.helper("touch DIR/began; while [ ! -e DIR/go ]; do sleep 0.05; done");
    let pairer = pairer(&bed);
    let first = target("127.0.0.1");
    pairer.diagnoses.start(first.clone()).unwrap();
    eventually("the helper is asked", || bed.path("began").exists()).await;
    pairer.diagnoses.start(first.clone()).unwrap();
    let report = pairer.diagnoses.latest(&first).unwrap();
    assert_eq!(report.findings.last().unwrap().state, State::Running);
    assert_eq!(report.findings.len(), 5, "it was not begun anew");

    pairer.diagnoses.start(target("127.0.0.2")).unwrap();
    pairer.diagnoses.start(target("localhost")).unwrap();
    let refused = pairer.diagnoses.start(target("127.0.0.4"));
    assert_eq!(refused, Err(TooMany));
    fs::write(bed.path("go"), "").unwrap();
    for host in ["127.0.0.1", "127.0.0.2", "localhost"] {
        finished(&pairer, &target(host)).await;
    }
    for n in 0..20 {
        examine(&pairer, &format!("127.0.1.{n}")).await;
    }
    assert!(
        pairer.diagnoses.latest(&first).is_none(),
        "reports are bounded"
    );
}
