//! Pairing with a real sshd, and what the link makes of it.

use std::sync::Arc;

use appliance::vm::{
    Event, Failure, FailureKind, LinkHandle, Pairer, Pairing, PublicKey, conf,
    pairing::{PairError, SetUp},
};

use super::bed::{Bed, Events, user};

fn order(host: &str, confirmed: &[&PublicKey]) -> SetUp {
    SetUp {
        pairing: Pairing {
            host: host.into(),
            user: user(),
        },
        confirmed: confirmed.iter().map(|key| key.fingerprint()).collect(),
        replaces: None,
    }
}

/// A bed without a pairing, its link and a pairer.
async fn unpaired() -> (Bed, LinkHandle, Events, Pairer) {
    let bed = Bed::new().await;
    conf::remove(&bed.path("vm.conf")).unwrap();
    bed.pins.forget().unwrap();
    let (link, events) = bed.link();
    let kick = link.clone();
    let pairer = Pairer::new(bed.config(), Arc::new(move || kick.kick()));
    (bed, link, events, pairer)
}

#[tokio::test]
async fn a_confirmed_host_key_is_paired_and_connected() {
    let (bed, _link, mut events, pairer) = unpaired().await;
    assert_eq!(events.next().await, Event::Paired(None));
    let key = bed.host_key("host_key");

    let first = pairer.set_up(order("127.0.0.1", &[])).await;
    let Err(PairError::Unconfirmed { shown }) = first else {
        panic!("{first:?}");
    };
    assert_eq!(shown, std::slice::from_ref(&key));
    bed.make_host_key("other");
    let other = bed.host_key("other");
    let changed = pairer.set_up(order("127.0.0.1", &[&other])).await;
    assert!(
        matches!(&changed, Err(PairError::Changed { shown, .. }) if *shown == [key.clone()]),
        "{changed:?}"
    );
    assert!(!bed.path("vm.conf").exists());

    // Twice at once, as by a double click.
    let twice = tokio::join!(
        pairer.set_up(order("127.0.0.1", &[&key])),
        pairer.set_up(order("127.0.0.1", &[&other, &key])),
    );
    assert!(twice.0.is_ok() && twice.1.is_ok(), "{twice:?}");
    assert_eq!(bed.pins.keys().unwrap(), [key]);
    events.up().await;
}

#[tokio::test]
async fn another_vm_or_key_needs_to_be_meant() {
    let (mut bed, link, mut events, pairer) = unpaired().await;
    let key = bed.host_key("host_key");
    pairer.set_up(order("127.0.0.1", &[&key])).await.unwrap();
    events.up().await;
    let here = order("127.0.0.1", &[]).pairing;

    let other = pairer.set_up(order("127.0.0.2", &[&key])).await;
    let Err(PairError::Replaces { old, pinned }) = other else {
        panic!("{other:?}");
    };
    assert_eq!((&old, pinned), (&here, vec![key.fingerprint()]));
    let meant = SetUp {
        replaces: Some(old),
        ..order("127.0.0.2", &[&key])
    };
    pairer.set_up(meant).await.unwrap();
    let to = events.up().await;
    assert_eq!(to.to_string(), "127.0.0.2");

    // The VM is reinstalled.
    bed.kill_server();
    events.down(FailureKind::Lost).await;
    std::fs::remove_file(bed.path("host_key")).unwrap();
    std::fs::remove_file(bed.path("host_key.pub")).unwrap();
    bed.make_host_key("host_key");
    bed.start_server().await;
    link.kick();
    events.down(FailureKind::HostKeyChanged).await;
    let new = bed.host_key("host_key");
    let again = pairer.set_up(order("127.0.0.2", &[&new])).await;
    let Err(PairError::Replaces { old, .. }) = again else {
        panic!("{again:?}");
    };
    let meant = SetUp {
        replaces: Some(old),
        ..order("127.0.0.2", &[&new])
    };
    pairer.set_up(meant).await.unwrap();
    events.up().await;
}

#[tokio::test]
async fn an_end_lasts_and_says_what_was() {
    let (bed, _link, mut events, pairer) = unpaired().await;
    let key = bed.host_key("host_key");
    let here = order("127.0.0.1", &[&key]);
    pairer.set_up(here.clone()).await.unwrap();
    events.up().await;

    assert_eq!(pairer.end().await.unwrap(), Some(here.pairing));
    let down = events
        .until(|event| match event {
            Event::Down(Failure { message, .. }) => Some(message.clone()),
            _ => None,
        })
        .await;
    assert!(down.contains("the pairing was changed"), "{down}");
    assert_eq!(events.next().await, Event::Paired(None));
    assert_eq!(pairer.end().await.unwrap(), None);
    assert!(bed.pins.keys().unwrap().is_empty());
    assert!(bed.masters().is_empty());
}
