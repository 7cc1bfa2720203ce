//! The link to the VM against a real sshd.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by them"
)]

mod bed;
mod diagnosis;
mod pairing;
mod password;

use std::{
    fs,
    time::{Duration, Instant},
};

use appliance::vm::{Event, FailureKind, host_key};
use bed::{BOOT_ID, Bed, GOOD_HELPER, eventually, signal};
use protocol::line::{Answer, Request};
use rustix::process::Signal;

#[tokio::test]
async fn greets_answers_and_closes() {
    let bed = Bed::new().await;
    let (link, mut events) = bed.link();

    let Event::Paired(Some(pairing)) = events.next().await else {
        panic!("the pairing comes first");
    };
    assert_eq!(pairing.host, "127.0.0.1");
    let address = "127.0.0.1".parse().unwrap();
    assert_eq!(events.next().await, Event::Resolved(vec![address]));
    let Event::Up { hello, address: to } = events.next().await else {
        panic!("then the session");
    };
    assert_eq!((hello.host_name.as_str(), to), ("testvm", address));
    let greeted = fs::read_to_string(bed.path("greeted")).unwrap();
    assert!(
        greeted.contains(&format!("boot={BOOT_ID} grace=30")),
        "{greeted}"
    );

    link.send(Request::Status).unwrap();
    let event = events.next().await;
    assert!(
        matches!(&event, Event::Reply { request: Request::Status, answer: Answer::Status(s) } if s.ports_free == 7),
        "{event:?}"
    );
    link.set_grace(120);
    eventually("the VM is told", || {
        fs::read_to_string(bed.path("greeted"))
            .unwrap()
            .contains("grace=120")
    })
    .await;

    let closing = Instant::now();
    link.close().await;
    assert!(closing.elapsed() < Duration::from_secs(2));
    assert!(bed.masters().is_empty());
    eventually("the helper ends", || bed.path("helper.ended").exists()).await;
}

#[tokio::test]
async fn a_changed_host_key_stops_everything_until_it_is_pinned() {
    let bed = Bed::new().await;
    bed.make_host_key("other");
    bed.pins.pin(&[bed.host_key("other")]).unwrap();
    let (link, mut events) = bed.link();

    let failure = events.down(FailureKind::HostKeyChanged).await;
    for name in ["host_key", "other"] {
        let fingerprint = bed.host_key(name).fingerprint();
        assert!(
            failure.message.contains(&fingerprint),
            "{}",
            failure.message
        );
    }
    assert!(failure.remedy.unwrap().contains("pair it again"));
    assert!(!bed.path("helper.pid").exists());

    bed.pins.pin(&[bed.host_key("host_key")]).unwrap();
    link.kick();
    events.up().await;
}

#[tokio::test]
async fn an_unknown_host_key_is_shown_and_pinned() {
    let bed = Bed::new().await;
    bed.pins.forget().unwrap();
    let (link, mut events) = bed.link();
    let failure = events.down(FailureKind::HostKeyUnknown).await;
    assert!(failure.message.contains("127.0.0.1"));

    let shown = host_key::scan("127.0.0.1", bed.port).await.unwrap();
    assert_eq!(shown, [bed.host_key("host_key")]);
    bed.pins.pin(&shown).unwrap();
    link.kick();
    events.up().await;
}

#[tokio::test]
async fn a_key_that_is_not_accepted_says_what_to_add() {
    let bed = Bed::new().await;
    fs::write(bed.path("authorized_keys"), "").unwrap();
    let (link, mut events) = bed.link();
    let failure = events.down(FailureKind::Login).await;
    assert!(failure.message.contains(&bed::user()));
    assert!(failure.remedy.unwrap().contains(&bed.key.public_key()));

    link.send(Request::Status).unwrap();
    let refused = events
        .until(|event| match event {
            Event::Reply {
                answer: Answer::Error(failure),
                ..
            } => Some(failure.clone()),
            _ => None,
        })
        .await;
    assert!(
        refused.message.contains("no session"),
        "{}",
        refused.message
    );

    bed.authorize();
    link.kick();
    events.up().await;
}

#[tokio::test]
async fn a_missing_helper_is_named() {
    let bed = Bed::new().await;
    fs::write(bed.path("authorized_keys"), bed.key.public_key()).unwrap();
    let (link, mut events) = bed.link();
    let failure = events.down(FailureKind::Helper).await;
    assert!(
        failure.message.contains("not installed"),
        "{}",
        failure.message
    );
    bed.authorize();
    link.kick();
    events.up().await;
}

#[tokio::test]
async fn sudo_that_refuses_is_named_whoever_says_it() {
    let bed = Bed::new().await;
    bed.helper("echo 'sudo: a password is required' >&2; exit 1");
    let (link, mut events) = bed.link();
    let failure = events.down(FailureKind::Sudo).await;
    assert!(failure.message.contains("a password is required"));
    assert!(failure.remedy.unwrap().contains("usermod -aG usbip"));

    bed.helper(
        r#"echo '{"error":{"kind":"not_permitted","message":"no rule","remedy":"add one"}}'; cat"#,
    );
    link.kick();
    let failure = events
        .until(|event| match event {
            Event::Down(failure) if failure.message.contains("no rule") => Some(failure.clone()),
            _ => None,
        })
        .await;
    assert_eq!(failure.kind, FailureKind::Sudo);
    assert_eq!(failure.remedy.as_deref(), Some("add one"));

    bed.helper("echo nonsense; exit 3");
    link.kick();
    let failure = events.down(FailureKind::Helper).await;
    assert!(
        failure.message.contains("without a greeting"),
        "{}",
        failure.message
    );

    bed.helper(GOOD_HELPER);
    link.kick();
    events.up().await;
}

#[tokio::test]
async fn a_server_that_dies_is_noticed_and_found_again() {
    let mut bed = Bed::new().await;
    let (_link, mut events) = bed.link();
    events.up().await;

    let died = Instant::now();
    bed.kill_server();
    events.down(FailureKind::Lost).await;
    assert!(
        died.elapsed() < Duration::from_secs(6),
        "{:?}",
        died.elapsed()
    );
    let failure = events.down(FailureKind::Unreachable).await;
    assert!(
        failure.message.contains("refuses connections"),
        "{}",
        failure.message
    );
    assert!(bed.masters().is_empty());

    bed.start_server().await;
    events.up().await;
}

#[tokio::test]
async fn a_silent_helper_is_noticed_and_replaced() {
    let bed = Bed::new().await;
    let (link, mut events) = bed.link();
    events.up().await;

    let silent = bed.helper_pid();
    let stopped = Instant::now();
    signal(silent, Signal::STOP);
    link.send(Request::Check).unwrap();
    let event = events.next().await;
    assert!(
        matches!(
            &event,
            Event::Reply {
                request: Request::Check,
                answer: Answer::Error(_)
            }
        ),
        "what is open is answered first: {event:?}"
    );
    let Event::Down(failure) = events.next().await else {
        panic!("then the session is down");
    };
    assert!(
        stopped.elapsed() < Duration::from_secs(6),
        "{:?}",
        stopped.elapsed()
    );
    assert_eq!(failure.kind, FailureKind::Lost);
    events.up().await;
    assert_ne!(bed.helper_pid(), silent);
    signal(silent, Signal::KILL);
}

#[tokio::test]
async fn a_killed_master_is_replaced() {
    let bed = Bed::new().await;
    let (_link, mut events) = bed.link();
    events.up().await;
    for pid in bed.masters() {
        signal(pid, Signal::KILL);
    }
    events.down(FailureKind::Lost).await;
    events.up().await;
    assert_eq!(bed.masters().len(), 1);
}

#[test]
fn what_a_killed_process_left_is_cleared() {
    let process = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let first = process();
    let bed = first.block_on(async {
        let bed = Bed::new().await;
        let (link, mut events) = bed.link();
        events.up().await;
        // As after SIGKILL: nothing is closed in order.
        std::mem::forget(link);
        std::mem::forget(events);
        bed
    });
    first.shutdown_background();
    let left = bed.masters();
    assert_eq!(left.len(), 1, "the master outlives its process");

    process().block_on(async {
        let (link, mut events) = bed.link();
        events.up().await;
        let now = bed.masters();
        assert_eq!(now.len(), 1);
        assert_ne!(now, left);
        let entries = fs::read_dir(bed.path("c")).unwrap().count();
        assert_eq!(entries, 2, "ssh's configuration and one control directory");
        link.close().await;
    });
}

#[tokio::test]
async fn the_session_follows_vm_conf() {
    let bed = Bed::new().await;
    let conf = bed.path("vm.conf");
    fs::remove_file(&conf).unwrap();
    let (_link, mut events) = bed.link();
    assert_eq!(events.next().await, Event::Paired(None));

    bed.pair("127.0.0.1");
    assert_eq!(events.up().await.to_string(), "127.0.0.1");
    let first = bed.masters();

    bed.pair("127.0.0.2");
    assert!(matches!(events.next().await, Event::Down(f) if f.message.contains("pairing")));
    assert!(matches!(events.next().await, Event::Paired(Some(p)) if p.host == "127.0.0.2"));
    assert_eq!(events.up().await.to_string(), "127.0.0.2");
    assert_eq!(bed.masters().len(), 1);
    assert_ne!(bed.masters(), first);

    fs::write(&conf, "VM_HOST=127.0.0.1\nVM_USER=a b\n").unwrap();
    let failure = events.down(FailureKind::Config).await;
    assert!(
        failure.message.contains("vm.conf, line 2"),
        "{}",
        failure.message
    );
    assert!(failure.remedy.unwrap().contains("change line 2"));

    bed.pair("nowhere.invalid");
    events.down(FailureKind::Name).await;

    bed.pair("localhost");
    events.up().await;

    fs::remove_file(&conf).unwrap();
    events
        .until(|event| (*event == Event::Paired(None)).then_some(()))
        .await;
    assert!(bed.masters().is_empty());
}
