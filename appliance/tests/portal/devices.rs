//! What a person does about one device.

use std::sync::Arc;

use appliance::{
    manager::{
        Command, MOST_KEPT, Ruling, Scope, View,
        view::{AliasView, DeviceState, DeviceView, HoldView, RuleView},
    },
    usb::Verdict,
    vm::FailureKind,
};
use protocol::{BusId, DevId};

use super::{
    rig::{Answer, Rig},
    sample,
};

const DEVID: (&str, &str) = ("devid", "00010004");

fn busid() -> BusId {
    "1-1".parse().unwrap()
}

/// The generation that the sample's devices are of.
const GENERATION: Option<DevId> = Some(DevId(0x0001_0004));

/// An attached device on port 1-1, or whatever `change` makes of it.
fn with(change: impl FnOnce(&mut DeviceView)) -> View {
    let mut view = sample::connected();
    let ttys = [("/dev/ttyUSB0", "usb-Silicon_Labs_CP2102-if00-port0")];
    let mut device = sample::attached("1-1", "CP2102", &ttys, "cp210x");
    change(&mut device);
    view.devices = vec![device];
    view
}

/// Click, have the manager hear this command and do that, and see what came of it.
async fn click(
    rig: &mut Rig,
    path: &str,
    fields: &[(&str, &str)],
    expected: Command,
    then: View,
) -> (Answer, String) {
    rig.session().await;
    let view = rig.view.clone();
    let mut commands = std::mem::replace(&mut rig.commands, tokio::sync::mpsc::channel(1).1);
    let manager = async {
        assert_eq!(commands.recv().await, Some(expected));
        view.send_replace(Arc::new(then));
    };
    let (answer, ()) = tokio::join!(rig.post_form(path, fields), manager);
    rig.commands = commands;
    assert_eq!(answer.status, 303, "{}", answer.body);
    let place = answer.header("location").unwrap();
    let place = place.split('#').next().unwrap().to_owned();
    let page = rig.get(&place).await;
    (answer, page.body)
}

#[tokio::test]
async fn a_device_shows_its_name_its_links_and_its_buttons() {
    let rig = Rig::new(sample::every_state()).await;
    let page = rig.get("/").await.body;
    for text in [
        "bench-jtag",
        "/dev/usb-pi/bench-jtag-1",
        "port 3 of hub 1-1",
        "USB2.0 Hub at 1-1",
        "USB bus 1",
        "just now",
        "formaction=\"/devices/1-1.3/detach\"",
        "formaction=\"/devices/1-1.3/power-cycle\"",
        "formaction=\"/devices/1-2/attach\"",
        "form=\"act\" name=\"devid\" value=\"00010004\"",
        "an upload fails",
        "href=\"/devices/1-1.3\"",
        // Also what is not plugged in.
        "weather",
        "whatever is in the port platform/soc/usb:1.4.2",
        "always export",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let details = rig.get("/devices/1-1.3").await;
    assert_eq!(details.status, 200);
    for text in [
        "value=\"bench-jtag\"",
        "Kept by its serial number",
        "platform/soc/usb:1.4",
        "name=\"form_token\"",
        "In force: always export, for all 10c4:ea60",
        "action=\"/devices/1-1.3/rename\"",
    ] {
        assert!(details.body.contains(text), "{text}: {}", details.body);
    }
    let refused = rig.get("/devices/1-1").await.body;
    assert!(refused.contains("It is never exported"), "{refused}");
    assert!(!refused.contains("/devices/1-1/rule"), "{refused}");
    assert_eq!(rig.get("/devices/1-9").await.status, 404);
    assert_eq!(rig.get("/devices/..").await.status, 404);
}

#[tokio::test]
async fn detach_and_attach_say_at_the_device_what_came_of_it() {
    let mut rig = Rig::new(with(|_| {})).await;
    let held = with(|device| device.state = DeviceState::Bound { held: true });
    let command = Command::Detach(busid(), GENERATION);
    let (answer, page) = click(&mut rig, "/devices/1-1/detach", &[DEVID], command, held).await;
    assert_eq!(
        answer.header("location"),
        Some("/?outcome=detached&device=1-1#device-1-1")
    );
    let (_, card) = page.split_once("id=\"device-1-1\"").unwrap();
    assert!(card.contains("stays on the Pi until somebody"), "{page}");
    // It is not part of what others see.
    assert!(!rig.get("/").await.body.contains("class=\"outcome"));

    let command = Command::Attach(busid(), GENERATION);
    let (_, page) = click(
        &mut rig,
        "/devices/1-1/attach",
        &[DEVID],
        command,
        with(|_| {}),
    )
    .await;
    assert!(page.contains("It is attached."), "{page}");
}

#[tokio::test]
async fn a_vm_that_does_not_answer_is_told_of() {
    let mut rig = Rig::new(with(|_| {})).await;
    let down = |state: DeviceState| View {
        devices: with(|device| device.state = state).devices,
        ..sample::down(FailureKind::Unreachable, "nothing answers", None)
    };
    let command = Command::Detach(busid(), GENERATION);
    let held = down(DeviceState::Bound { held: true });
    let (_, page) = click(&mut rig, "/devices/1-1/detach", &[DEVID], command, held).await;
    assert!(
        page.contains("It is detached here. The VM does not answer"),
        "{page}"
    );
    let command = Command::Attach(busid(), GENERATION);
    let free = down(DeviceState::Bound { held: false });
    let (_, page) = click(&mut rig, "/devices/1-1/attach", &[DEVID], command, free).await;
    assert!(page.contains("attached as soon as it does"), "{page}");
}

#[tokio::test]
async fn a_click_on_an_old_page_does_nothing() {
    let mut rig = Rig::new(with(|_| {})).await;
    let old = ("devid", "00010003");
    for (path, fields) in [
        ("/devices/1-1/detach", vec![old]),
        ("/devices/1-1/attach", vec![old]),
        ("/devices/1-1/power-cycle", vec![old]),
    ] {
        let answer = rig.post_form(path, &fields).await;
        let place = answer.header("location").unwrap();
        assert!(
            place.starts_with("/?outcome=replaced&device=1-1"),
            "{place}"
        );
    }
    let rename = [old, ("name", "x")];
    let rename = rig.post_form("/devices/1-1/rename", &rename);
    assert!(
        rename
            .await
            .body
            .contains("another device was plugged in there")
    );
    let rule = [old, ("about", "port"), ("ruling", "ignore")];
    let rule = rig.post_form("/devices/1-1/rule", &rule).await;
    assert!(rule.body.contains("another device was plugged in there"));
    rig.view.send_replace(Arc::new(sample::connected()));
    let answer = rig.post_form("/devices/1-1/detach", &[DEVID]).await;
    let page = rig.get("/?outcome=gone&device=1-1").await.body;
    assert!(answer.header("location").unwrap().contains("outcome=gone"));
    assert!(page.contains("not plugged in any more"), "{page}");
    assert!(rig.commands.try_recv().is_err());
}

#[tokio::test]
async fn a_port_that_cannot_be_switched_is_said_honestly() {
    let mut rig = Rig::new(with(|_| {})).await;
    let why = "this port cannot be switched: its hub has no power switches";
    let command = || Command::PowerCycle(busid(), GENERATION);
    let failed = with(|device| device.power_failure = Some(why.into()));
    let path = "/devices/1-1/power-cycle";
    let (_, page) = click(&mut rig, path, &[DEVID], command(), failed).await;
    assert!(page.contains("It was not power-cycled;"), "{page}");
    for once in ["was not switched off and on", why] {
        assert_eq!(page.matches(once).count(), 1, "{once}: {page}");
    }

    rig.view.send_replace(Arc::new(with(|_| {})));
    let back = with(|device| device.facts.devid = DevId(0x0001_0005));
    let (_, page) = click(&mut rig, path, &[DEVID], command(), back).await;
    assert!(page.contains("it came back"), "{page}");
}

#[tokio::test]
async fn what_failed_before_the_click_is_not_what_came_of_it() {
    let failed = |next_try_ms| {
        with(|device| {
            device.state = DeviceState::Failed {
                message: "the tty did not come".into(),
                remedy: None,
                next_try_ms,
            };
        })
    };
    for (after, outcome) in [(with(|_| {}), "=attached"), (failed(9000), "=not-attached")] {
        let mut rig = Rig::new(failed(4000)).await;
        let command = Command::Attach(busid(), GENERATION);
        let (answer, page) = click(&mut rig, "/devices/1-1/attach", &[DEVID], command, after).await;
        let place = answer.header("location").unwrap();
        assert!(place.contains(outcome), "{place}: {page}");
    }

    // A power-cycle that failed a moment ago is told for a minute.
    let refused = with(|device| device.power_failure = Some("no switches".into()));
    let mut rig = Rig::new(refused).await;
    let command = Command::PowerCycle(busid(), GENERATION);
    let back = with(|device| device.facts.devid = DevId(0x0001_0005));
    let (_, page) = click(
        &mut rig,
        "/devices/1-1/power-cycle",
        &[DEVID],
        command,
        back,
    )
    .await;
    assert!(page.contains("it came back"), "{page}");
}

#[tokio::test]
async fn the_port_of_what_the_pi_needs_is_not_switched() {
    let needed = with(|device| device.facts.verdict = Verdict::Refuse("a network adapter".into()));
    let mut rig = Rig::new(needed).await;
    let answer = rig.post_form("/devices/1-1/power-cycle", &[DEVID]).await;
    let place = answer.header("location").unwrap();
    assert!(place.contains("outcome=never-cycled"), "{place}");
    assert!(rig.commands.try_recv().is_err());
}

#[tokio::test]
async fn what_is_too_much_is_said_where_it_was_clicked() {
    let mut view = with(|device| device.can_be_held = false);
    let numbered = |n: usize| Scope::Serial(format!("N{n}"));
    view.aliases = (0..MOST_KEPT)
        .map(|n| AliasView {
            alias: format!("board{n}").parse().unwrap(),
            scope: numbered(n),
            busid: None,
        })
        .collect();
    view.rules = (0..MOST_KEPT)
        .map(|n| RuleView {
            scope: numbered(n),
            ruling: Ruling::Ignore,
        })
        .collect();
    let mut rig = Rig::new(view).await;
    let name = ("name", "one-more");
    let (about, ruling) = (("about", "port"), ("ruling", "ignore"));
    for (path, fields, told) in [
        (
            "/devices/1-1/detach",
            vec![DEVID],
            "too many boards are held back already",
        ),
        (
            "/devices/1-1/rename",
            vec![DEVID, name],
            "It did not get that name: there are too many already",
        ),
        (
            "/devices/1-1/rule",
            vec![DEVID, about, ruling],
            "The rule was not made: there are too many already",
        ),
    ] {
        let answer = rig.post_form(path, &fields).await;
        let place = answer.header("location").unwrap();
        let page = rig.get(place.split('#').next().unwrap()).await.body;
        let line = page.split_once("class=\"outcome bad\"").unwrap().1;
        let line = line.split_once("</p>").unwrap().0;
        assert!(line.contains(told), "{path}: {line}");
    }
    assert!(rig.commands.try_recv().is_err());

    // Another click took the last place meanwhile.
    rig.view.send_replace(Arc::new(with(|_| {})));
    let full = with(|device| device.can_be_held = false);
    let command = Command::Detach(busid(), GENERATION);
    let (_, page) = click(&mut rig, "/devices/1-1/detach", &[DEVID], command, full).await;
    assert!(page.contains("It is not detached: too many"), "{page}");
}

#[tokio::test]
async fn a_name_is_checked_given_and_taken_away() {
    let mut rig = Rig::new(with(|_| {})).await;
    let path = "/devices/1-1/rename";
    for (typed, told) in [
        ("my board", "&#39; &#39; cannot be in a name"),
        ("../x", "cannot be in a name"),
        ("<b>", "cannot be in a name"),
        ("-x", "begins with a letter or digit"),
        (&"x".repeat(40), "at most 32 characters"),
    ] {
        let answer = rig.post_form(path, &[DEVID, ("name", typed)]).await;
        assert_eq!(answer.status, 422, "{typed}");
        let escaped = told.replace("&#39;", "'");
        assert!(answer.body.contains(&escaped), "{typed}: {}", answer.body);
        let kept = format!(
            "value=\"{}\"",
            typed.replace('<', "&lt;").replace('>', "&gt;")
        );
        assert!(answer.body.contains(&kept), "{typed}: {}", answer.body);
    }
    let alias = |name: &str, scope| AliasView {
        alias: name.parse().unwrap(),
        scope,
        busid: None,
    };
    let mut view = with(|_| {});
    view.aliases = vec![alias("taken", Scope::Serial("Z9".into()))];
    rig.view.send_replace(Arc::new(view.clone()));
    for name in ["taken", "TAKEN", "taken-1"] {
        let answer = rig.post_form(path, &[DEVID, ("name", name)]).await;
        assert_eq!(answer.status, 422, "{name}");
        assert!(
            answer.body.contains("another device’s name"),
            "{}",
            answer.body
        );
    }
    assert!(rig.commands.try_recv().is_err());

    let scope = view.devices[0].scope.clone();
    let mut named = view.clone();
    named.aliases.push(alias("board", scope.clone()));
    named.devices[0].alias = Some("board".parse().unwrap());
    named.devices[0].links = vec!["/dev/usb-pi/board".into()];
    let command = Command::Name(scope.clone(), Some("board".parse().unwrap()));
    let form = [DEVID, ("name", " board ")];
    let (answer, page) = click(&mut rig, path, &form, command, named).await;
    assert_eq!(
        answer.header("location"),
        Some("/devices/1-1?outcome=named")
    );
    assert!(
        page.contains("It has its name.") && page.contains("/dev/usb-pi/board"),
        "{page}"
    );

    // On the dashboard, also for what is not plugged in.
    let command = Command::Name(scope.clone(), None);
    let form = [("scope", &*scope.to_string())];
    let (_, page) = click(&mut rig, "/names/forget", &form, command, view).await;
    assert!(page.contains("The name is forgotten."), "{page}");
}

#[tokio::test]
async fn a_helper_without_links_is_no_failure() {
    let mut rig = Rig::new(with(|_| {})).await;
    let mut named = with(|device| device.alias = Some("board".parse().unwrap()));
    let scope = named.devices[0].scope.clone();
    named.aliases.push(AliasView {
        alias: "board".parse().unwrap(),
        scope: scope.clone(),
        busid: Some(busid()),
    });
    let command = Command::Name(scope, Some("board".parse().unwrap()));
    let form = [DEVID, ("name", "board")];
    let (_, page) = click(&mut rig, "/devices/1-1/rename", &form, command, named).await;
    assert!(page.contains("too old to make a link"), "{page}");
}

#[tokio::test]
async fn rules_are_made_for_each_kind_of_scope_and_forgotten() {
    let view = with(|device| device.facts.verdict = Verdict::Skip("only a disk".into()));
    let facts = view.devices[0].facts.clone();
    let mut rig = Rig::new(view.clone()).await;
    for (about, scope) in [
        ("serial", Scope::serial(&facts).unwrap()),
        ("port", Scope::port(&facts)),
        ("product", Scope::product(&facts)),
    ] {
        rig.view.send_replace(Arc::new(view.clone()));
        let rule = RuleView {
            scope: scope.clone(),
            ruling: Ruling::Export,
        };
        let mut ruled = view.clone();
        ruled.rules = vec![rule.clone()];
        ruled.devices[0].rule = Some(rule);
        let form = [DEVID, ("about", about), ("ruling", "export")];
        let command = Command::Rule(scope.clone(), Some(Ruling::Export));
        let (_, page) = click(&mut rig, "/devices/1-1/rule", &form, command, ruled).await;
        assert!(page.contains("The rule is in force."), "{page}");

        let command = Command::Rule(scope.clone(), None);
        let form = [("scope", &*scope.to_string())];
        let (_, page) = click(&mut rig, "/rules/forget", &form, command, view.clone()).await;
        assert!(page.contains("The rule is forgotten."), "{page}");
    }
}

#[tokio::test]
async fn a_board_that_is_held_back_and_unplugged_is_listed_and_let_go() {
    let mut view = with(|_| {});
    let scope = Scope::Serial("<A&1>".into());
    view.holds = vec![HoldView {
        scope: scope.clone(),
        busid: None,
    }];
    let mut rig = Rig::new(view).await;
    let page = rig.get("/").await.body;
    assert!(page.contains("Names, rules and holds (1)"), "{page}");
    let line = "Detached by somebody: serial number &lt;A&amp;1&gt;, not plugged in";
    assert!(page.contains(line), "{page}");

    let form = [("scope", &*scope.to_string())];
    let command = Command::Release(scope);
    let (_, page) = click(&mut rig, "/holds/forget", &form, command, with(|_| {})).await;
    assert!(page.contains("It is held back no longer"), "{page}");
    assert!(!page.contains("Detached by somebody"), "{page}");
}

#[tokio::test]
async fn what_changes_something_takes_the_portals_own_forms_only() {
    let mut rig = Rig::new(with(|_| {})).await;
    for path in [
        "/devices/1-1/attach",
        "/devices/1-1/detach",
        "/devices/1-1/power-cycle",
        "/devices/1-1/rename",
        "/devices/1-1/rule",
        "/names/forget",
        "/rules/forget",
        "/holds/forget",
    ] {
        assert_eq!(rig.get(path).await.status, 405, "{path}");
        let stranger = rig.stranger_form(path, &[DEVID]).await;
        assert_ne!(stranger.status, 303, "{path}");
        let cookie = format!("cookie: {}", rig.session().await.cookie);
        let headers = [&super::rig::OWN_FORM[..], &[&cookie]].concat();
        let line = format!("POST {path}");
        let tokenless = rig.stranger(&line, &headers, "devid=00010004").await;
        assert_eq!(tokenless.status, 403, "{path}");
        for garbage in [
            "devid=zzz&name=%ff",
            "scope=colour+red",
            "%%%",
            "devid=1&devid=2",
        ] {
            assert_eq!(
                rig.post_encoded(path, garbage).await.status,
                400,
                "{path} {garbage}"
            );
        }
        let large = format!("devid=00010004&name={}", "x".repeat(10_000));
        assert!(
            [400, 413].contains(&rig.post_encoded(path, &large).await.status),
            "{path}"
        );
    }
    assert!(rig.commands.try_recv().is_err());
}
