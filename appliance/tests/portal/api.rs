//! What programs ask for, and whether it is as the document says.

use appliance::{
    history::{AttachDetail, Event, Kind, Sighting, Subject},
    manager::{
        Command, View,
        view::{AliasView, DeviceState, DeviceView, RuleView},
    },
    vm::FailureKind,
};
use protocol::BusId;
use serde_json::Value;

use super::{
    rig::{Answer, Rig},
    sample,
    schema::{errors, resolved},
};

const DOCUMENT: &str = include_str!("../../api/openapi.json");
const ROUTES: &str = include_str!("../../src/portal/routes.rs");

/// Asks with a token.
struct Program {
    rig: Rig,
    document: Value,
    bearer: String,
}

impl Program {
    async fn new(rig: Rig) -> Self {
        let token = rig.access.make_token([127, 0, 0, 1].into(), "test").await;
        Self {
            rig,
            document: serde_json::from_str(DOCUMENT).unwrap(),
            bearer: format!("authorization: Bearer {}", token.unwrap().expose()),
        }
    }

    async fn ask(&self, line: &str) -> Answer {
        self.send(line, "").await
    }

    async fn send(&self, line: &str, body: &str) -> Answer {
        let json = "content-type: application/json";
        let headers = ["host: localhost", &self.bearer, json];
        self.rig.stranger(line, &headers, body).await
    }

    /// Ask, and compare the answer with the document; its status and body.
    async fn checked(&self, method: &str, template: &str, path: &str) -> (u16, Value) {
        self.sent(method, template, path, "").await
    }

    /// The same with a body.
    async fn sent(&self, method: &str, template: &str, path: &str, sent: &str) -> (u16, Value) {
        let answer = self.send(&format!("{method} {path}"), sent).await;
        let operation = &self.document["paths"][template][method.to_lowercase()];
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        let response = &operation["responses"][answer.status.to_string()];
        let response = resolved(&self.document, response);
        let schema = &response["content"]["application/json"]["schema"];
        assert!(
            schema.is_object(),
            "{method} {path}: {} is not described",
            answer.status
        );
        if template != "/api/v1/openapi.json" {
            let wrong = errors(&self.document, schema, &body, path);
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
        (answer.status, body)
    }
}

fn at<'a>(view: &'a mut View, busid: &BusId) -> &'a mut DeviceView {
    let mut devices = view.devices.iter_mut();
    devices.find(|d| d.facts.busid == *busid).unwrap()
}

/// Do at once what is ordered.
fn play_manager(rig: &mut Rig) {
    let mut commands = std::mem::replace(&mut rig.commands, tokio::sync::mpsc::channel(1).1);
    let view = rig.view.clone();
    tokio::spawn(async move {
        while let Some(command) = commands.recv().await {
            view.send_modify(|view| {
                let view = std::sync::Arc::make_mut(view);
                match command {
                    Command::PowerCycle(busid, _) => {
                        at(view, &busid).facts.devid.0 += 1;
                    }
                    Command::Attach(busid, _) => {
                        let device = at(view, &busid);
                        device.state = DeviceState::Attached {
                            attachment: None,
                            silent: false,
                        };
                    }
                    Command::Detach(busid, _) => {
                        at(view, &busid).state = DeviceState::Bound { held: true };
                    }
                    Command::Name(scope, alias) => {
                        view.aliases.retain(|one| one.scope != scope);
                        view.aliases.extend(alias.map(|alias| AliasView {
                            alias,
                            scope,
                            busid: None,
                        }));
                    }
                    Command::Rule(scope, ruling) => {
                        view.rules.retain(|one| one.scope != scope);
                        view.rules
                            .extend(ruling.map(|ruling| RuleView { scope, ruling }));
                    }
                    Command::Release(scope) => view.holds.retain(|one| one.scope != scope),
                    Command::AttachAll => {}
                }
            });
        }
    });
}

#[tokio::test]
async fn names_rules_and_ports_by_program() {
    let mut program = Program::new(Rig::new(sample::every_state()).await).await;
    play_manager(&mut program.rig);
    let (rename, cycle) = (
        "/api/v1/devices/{busid}/rename",
        "/api/v1/devices/{busid}/power-cycle",
    );
    let (rules, forget) = ("/api/v1/rules", "/api/v1/rules/forget");
    for (template, body, status, told) in [
        (rename, r#"{"name": " blinky "}"#, 202, "named"),
        (rename, r#"{"name": ""}"#, 202, "unnamed"),
        (
            rename,
            r#"{"name": "my board"}"#,
            422,
            "cannot be in a name",
        ),
        (rename, r#"{"name": "Weather"}"#, 422, "another device"),
        (rename, "{}", 400, "not understood"),
        (rename, "name=x", 400, "not understood"),
        (cycle, "", 202, "cycled"),
        (
            rules,
            r#"{"scope": "product 10c4:ea61", "ruling": "ignore"}"#,
            202,
            "ruled",
        ),
        (
            rules,
            r#"{"scope": "red", "ruling": "ignore"}"#,
            400,
            "names no device",
        ),
        (rules, r#"{"scope": "port x", "ruling": "eat"}"#, 400, "eat"),
        (forget, r#"{"scope": "product 10c4:ea61"}"#, 202, "unruled"),
        (forget, r#"{"scope": "product 10c4:ea61"}"#, 202, "unruled"),
    ] {
        let path = template.replace("{busid}", "1-1.3");
        let (got, answer) = program.sent("POST", template, &path, body).await;
        assert_eq!(got, status, "{path} {body}: {answer}");
        assert!(answer.to_string().contains(told), "{path} {body}: {answer}");
    }
    let unname = "/api/v1/names/forget";
    for body in [
        r#"{"scope": "serial ABC1"}"#,
        r#"{"scope": "port nowhere"}"#,
    ] {
        let (status, answer) = program.sent("POST", unname, unname, body).await;
        assert_eq!((status, &answer["outcome"]), (202, &"unnamed".into()));
    }
    let (release, held) = ("/api/v1/holds/forget", r#"{"scope": "serial A50285BI"}"#);
    for _ in 0..2 {
        let (status, answer) = program.sent("POST", release, release, held).await;
        assert_eq!((status, &answer["outcome"]), (202, &"released".into()));
        assert!(program.rig.view.borrow().holds.is_empty());
    }
    for (template, body) in [(rename, r#"{"name": "x"}"#), (cycle, "")] {
        let path = template.replace("{busid}", "9-9");
        assert_eq!(program.sent("POST", template, &path, body).await.0, 404);
    }
}

/// The paths in the document.
fn paths(document: &Value) -> Vec<String> {
    document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect()
}

#[tokio::test]
async fn every_route_is_in_the_document_and_the_other_way_round() {
    let mut program = Program::new(Rig::new(sample::every_state()).await).await;
    play_manager(&mut program.rig);
    let described = paths(&program.document);
    let routes = ROUTES
        .split('"')
        .filter(|text| text.starts_with("/api/v1/"));
    let mut routes: Vec<_> = routes.map(str::to_owned).collect();
    routes.sort();
    routes.dedup();
    let mut sorted = described.clone();
    sorted.sort();
    assert_eq!(routes, sorted);
    for template in described {
        let path = template.replace("{busid}", "1-1.3");
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let operation = &program.document["paths"][&template][method.to_lowercase()];
            if operation.is_object() {
                let body = match template.rsplit('/').next().unwrap() {
                    "rename" => r#"{"name": "blinky"}"#,
                    "rules" => r#"{"scope": "serial ab:c1", "ruling": "ignore"}"#,
                    "forget" => r#"{"scope": "serial ABC1"}"#,
                    // Without an SSH server there is nothing to pair with.
                    "pair" => continue,
                    "test" => r#"{"host": "127.0.0.1", "user": "dev"}"#,
                    _ => "",
                };
                let (status, _) = program.sent(method, &template, &path, body).await;
                assert!([200, 202].contains(&status), "{method} {path}: {status}");
            } else {
                let answer = program.ask(&format!("{method} {path}")).await;
                assert_eq!(answer.status, 405, "{method} {path}");
                assert!(answer.header("allow").is_some());
                let error: Value = serde_json::from_str(&answer.body).unwrap();
                assert!(error["remedy"].is_string());
            }
        }
    }
    let served = program.ask("GET /api/v1/openapi.json").await;
    assert_eq!(served.body, DOCUMENT);
    assert_eq!(program.ask("GET /api/v1/nothing").await.status, 404);
    assert_eq!(program.ask("GET /api/v2/status").await.status, 404);
}

#[tokio::test]
async fn answers_are_as_the_document_says() {
    let program = Program::new(Rig::new(sample::every_state()).await).await;
    let views = [
        sample::every_state(),
        sample::empty(),
        sample::connected(),
        sample::down(FailureKind::Unreachable, "nothing answers", Some("x")),
    ];
    let every = &sample::every_state().devices;
    for device in every {
        let facts = &device.facts;
        program.rig.history.saw(Sighting::of(facts, true));
        let mut event = Event::new(Kind::Attached).about(Subject::of(facts));
        event.attached = Some(AttachDetail {
            ttys: vec!["/dev/ttyUSB0".into()],
            port: 3,
            plug_to_tty_ms: Some(418),
            timings: None,
        });
        program.rig.history.append(event);
    }
    for kind in Kind::ALL {
        let event = Event::new(*kind).by([10, 0, 0, 7].into()).saying("x");
        program.rig.history.append(event);
    }
    for view in views {
        program.rig.view.send_replace(view.into());
        for path in ["/api/v1/status", "/api/v1/devices", "/api/v1/events"] {
            let (status, _) = program.checked("GET", path, path).await;
            assert_eq!(status, 200);
        }
    }
    let (status, body) = program
        .checked("GET", "/api/v1/events", "/api/v1/events?kind=nonsense")
        .await;
    assert_eq!(status, 400, "{body}");
}

#[tokio::test]
async fn actions_reach_the_manager() {
    let mut program = Program::new(Rig::new(sample::every_state()).await).await;
    let all = "/api/v1/attach-all";
    let (attach, detach) = (
        "/api/v1/devices/{busid}/attach",
        "/api/v1/devices/{busid}/detach",
    );
    let at = |template: &str, busid: &str| template.replace("{busid}", busid);

    let (status, body) = program.checked("POST", all, all).await;
    assert_eq!((status, &body["outcome"]), (202, &"attaching-all".into()));
    assert_eq!(program.rig.commands.recv().await, Some(Command::AttachAll));
    let down = sample::down(FailureKind::Unreachable, "nothing answers", None);
    program.rig.view.send_replace(down.into());
    let (_, body) = program.checked("POST", all, all).await;
    assert_eq!(body["outcome"], "all-later");
    program.rig.commands.recv().await;
    program.rig.view.send_replace(sample::empty().into());
    assert_eq!(program.checked("POST", all, all).await.0, 409);
    assert!(program.rig.commands.try_recv().is_err());

    program.rig.view.send_replace(sample::every_state().into());
    play_manager(&mut program.rig);
    for (template, outcome) in [(detach, "detached"), (attach, "attached")] {
        let (status, body) = program
            .checked("POST", template, &at(template, "1-1.3"))
            .await;
        assert_eq!((status, &body["outcome"]), (202, &outcome.into()));
    }
    program.rig.view.send_modify(|view| {
        for device in &mut std::sync::Arc::make_mut(view).devices {
            device.can_be_held = false;
        }
    });
    let (status, body) = program.checked("POST", detach, &at(detach, "1-1.3")).await;
    let error = body["error"].as_str().unwrap();
    assert!(status == 409 && error.contains("held back"), "{error}");
    for (busid, expected) in [("9-9", 404), ("x", 404), ("%00", 404), ("1-1", 409)] {
        for template in [attach, detach] {
            let (status, _) = program
                .checked("POST", template, &at(template, busid))
                .await;
            assert_eq!(status, expected, "{busid}");
        }
    }
    let mut program = Program::new(Rig::new(sample::every_state()).await).await;
    program.rig.commands.close();
    assert_eq!(program.checked("POST", all, all).await.0, 503);
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let mut program = Program::new(Rig::new(sample::every_state()).await).await;
    let large = format!(r#"{{"name": "{}"}}"#, "x".repeat(5000));
    let mut refused = 0;
    for template in paths(&program.document) {
        let takes = program.document["paths"][&template]["post"]["requestBody"].is_object();
        if takes {
            let path = template.replace("{busid}", "1-1.3");
            let (status, answer) = program.sent("POST", &template, &path, &large).await;
            assert_eq!(status, 413, "{path}: {answer}");
            refused += 1;
        }
    }
    assert!(refused >= 6, "{refused}");
    assert!(program.rig.commands.try_recv().is_err());
}

#[tokio::test]
async fn the_pairing_by_program() {
    let program = Program::new(Rig::new(sample::empty()).await).await;
    let (test, pair, part) = (
        "/api/v1/vm/test",
        "/api/v1/vm/pair",
        "/api/v1/vm/disconnect",
    );
    // Nothing listens there.
    let vm = r#"{"host": "127.0.0.1", "user": "dev"}"#;
    let (status, report) = program.sent("POST", test, test, vm).await;
    assert_eq!((status, &report["done"]), (200, &true.into()), "{report}");
    assert_eq!(report["target"]["user"], "dev");
    let last = report["findings"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["id"], &last["state"]),
        (&"ssh".into(), &"failed".into())
    );
    for (path, body, expected) in [
        (test, "{}", 400),
        (test, r#"{"host": "a b", "user": "dev"}"#, 422),
        (pair, r#"{"host": "-oX", "user": "dev"}"#, 422),
        (pair, vm, 502),
        (part, "", 202),
    ] {
        let (status, answer) = program.sent("POST", path, path, body).await;
        assert_eq!(status, expected, "{path} {body}: {answer}");
    }
}

#[tokio::test]
async fn only_tokens_change_something() {
    let mut rig = Rig::new(sample::every_state()).await;
    for path in paths(&serde_json::from_str(DOCUMENT).unwrap()) {
        for method in ["GET", "POST"] {
            let line = format!("{method} {path}");
            let own = ["host: localhost", "origin: http://localhost"];
            let answer = rig.stranger(&line, &own, "").await;
            assert_eq!(answer.status, 401, "{line}");
            let error: Value = serde_json::from_str(&answer.body).unwrap();
            assert!(error["error"].is_string() && error["remedy"].is_string());
        }
        // A browser's session may look, and not even its own page may do anything.
        let form = format!("form_token={}", rig.session().await.form_token);
        let answer = rig
            .request(&format!("POST {path}"), &super::rig::OWN_FORM, &form)
            .await;
        assert_eq!(answer.status, 401, "{path}");
    }
    assert_eq!(rig.get("/api/v1/status").await.status, 200);
    // A foreign page with a token that it should not have.
    let program = Program::new(rig).await;
    let headers = [
        "host: localhost",
        "origin: http://evil.example",
        &program.bearer,
    ];
    let answer = program
        .rig
        .stranger("POST /api/v1/attach-all", &headers, "")
        .await;
    assert_eq!(answer.status, 403);
    rig = program.rig;
    assert!(rig.commands.try_recv().is_err());
}

#[tokio::test]
async fn metrics_are_what_prometheus_reads() {
    let rig = Rig::new(sample::every_state()).await;
    assert_eq!(
        rig.stranger("GET /metrics", &["host: localhost"], "")
            .await
            .status,
        401
    );
    for _ in 0..3 {
        rig.history.append(Event::new(Kind::SessionUp));
        rig.history
            .append(Event::new(Kind::Refused).by([10, 0, 0, 7].into()));
    }
    let mut event = Event::new(Kind::Attached);
    event.attached = Some(AttachDetail {
        ttys: Vec::new(),
        port: 0,
        plug_to_tty_ms: Some(418),
        timings: None,
    });
    rig.history.append(event);
    let program = Program::new(rig).await;
    let answer = program.ask("GET /metrics").await;
    assert_eq!(answer.status, 200);
    let kind = answer.header("content-type").unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");

    let mut described: Vec<&str> = Vec::new();
    for line in answer.body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["gauge", "counter", "histogram"].contains(&kind), "{line}");
            assert!(!described.contains(&name), "{name} twice");
            described.push(name);
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let last = described.last().unwrap();
            let tail = name.strip_prefix(last).unwrap();
            assert!(["", "_bucket", "_sum", "_count"].contains(&tail), "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    for line in [
        "usbip_pi_devices{state=\"attached\"} 2",
        "usbip_pi_devices{state=\"skipped\"} 2",
        "usbip_pi_devices{state=\"failed\"} 2",
        "usbip_pi_session_up 1",
        "usbip_pi_vhci_ports_free 5",
        "usbip_pi_reconnects_total 2",
        "usbip_pi_refused_imports_total 3",
        "usbip_pi_events_total{kind=\"attached\"} 1",
        "usbip_pi_plug_to_tty_seconds_bucket{le=\"0.250\"} 0",
        "usbip_pi_plug_to_tty_seconds_bucket{le=\"0.500\"} 1",
        "usbip_pi_plug_to_tty_seconds_bucket{le=\"+Inf\"} 1",
        "usbip_pi_plug_to_tty_seconds_sum 0.418",
        "usbip_pi_plug_to_tty_seconds_count 1",
        "usbip_pi_live_readers 0",
    ] {
        let found = answer.body.lines().any(|one| one == line);
        assert!(found, "{line}\n{}", answer.body);
    }
    assert!(answer.body.contains("\nprocess_resident_memory_bytes "));
}
