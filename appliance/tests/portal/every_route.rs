//! What holds for every route, also for those that will be added: read from the table of routes.

use super::{
    live::STREAMS,
    rig::{OWN_FORM, Rig},
    sample,
};

const ROUTES: &str = include_str!("../../src/portal/routes.rs");

/// All that needs no session.
const OPEN: [&str; 6] = [
    "/healthz",
    "/claim",
    "/sign-in",
    "/assets/",
    "/packages/",
    "/join/",
];

/// An address of each route.
fn paths() -> Vec<String> {
    let texts = ROUTES.split("_at(").skip(1).filter_map(|rest| {
        let text = rest.trim_start().strip_prefix('"')?;
        text.split_once('"').map(|(path, _)| path)
    });
    let paths: Vec<_> = texts
        .map(|template| {
            let parts = template.split('/').map(|part| match part {
                "{busid}" => "1-1.3",
                part if part.starts_with('{') => "x",
                part => part,
            });
            parts.collect::<Vec<_>>().join("/")
        })
        .collect();
    assert!(paths.len() > 20, "{paths:?}");
    paths
}

fn is_open(path: &str) -> bool {
    OPEN.iter()
        .any(|open| path == *open || open.ends_with('/') && path.starts_with(open))
}

fn is_stream(path: &str) -> bool {
    STREAMS.contains(&path)
}

fn is_for_programs(path: &str) -> bool {
    path.starts_with("/api/") || path == "/metrics"
}

#[tokio::test]
async fn signed_out() {
    let mut rig = Rig::new(sample::every_state()).await;
    rig.session().await;
    for path in paths().iter().filter(|path| !is_open(path)) {
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let line = format!("{method} {path}");
            let body = if method == "GET" { "" } else { "x=y" };
            let answer = rig.stranger(&line, &OWN_FORM, body).await;
            let leads_on = method == "GET" && !is_for_programs(path) && !is_stream(path);
            assert_eq!(answer.status, if leads_on { 303 } else { 401 }, "{line}");
            assert!(!answer.body.contains("Arduino"), "{line}");
            assert!(answer.header("set-cookie").is_none(), "{line}");
        }
    }
    assert!(rig.commands.try_recv().is_err());
}

#[tokio::test]
async fn looking_changes_nothing() {
    let mut rig = Rig::new(sample::every_state()).await;
    rig.session().await;
    let token = rig.access.make_token([127, 0, 0, 1].into(), "x").await;
    let bearer = format!("authorization: Bearer {}", token.unwrap().expose());
    let kept = |rig: &Rig| {
        let (sessions, tokens) = (rig.access.sessions().len(), rig.access.tokens().len());
        let paired = rig.dir.path().join("vm.conf").exists();
        (sessions, tokens, paired, rig.history.newest())
    };
    let before = kept(&rig);
    let fields =
        "devid=00010004&name=x&about=port&ruling=ignore&scope=port+x&host=127.0.0.1&user=dev&key=x";
    for path in paths().iter().filter(|path| !is_stream(path)) {
        for method in ["GET", "HEAD", "OPTIONS"] {
            let line = format!("{method} {path}?{fields}");
            let headers = [OWN_FORM[0], &bearer];
            let answer = rig.request(&line, &headers, "").await;
            assert!(answer.status < 500, "{line}: {}", answer.head);
            assert!(answer.header("set-cookie").is_none(), "{line}");
        }
    }
    assert_eq!(kept(&rig), before);
    assert!(rig.commands.try_recv().is_err());
}

#[tokio::test]
async fn a_foreign_host() {
    let mut rig = Rig::new(sample::every_state()).await;
    let headers = [
        "host: evil.example",
        "origin: http://evil.example",
        "content-type: application/x-www-form-urlencoded",
    ];
    let form = format!("form_token={}", rig.session().await.form_token);
    for path in paths() {
        for method in ["GET", "POST"] {
            let line = format!("{method} {path}");
            let answer = rig.request(&line, &headers, &form).await;
            assert_eq!(answer.status, 403, "{line}");
            assert!(answer.body.contains("not called evil.example"), "{line}");
        }
    }
    assert!(rig.commands.try_recv().is_err());
}

#[tokio::test]
async fn a_foreign_origin() {
    let mut rig = Rig::new(sample::every_state()).await;
    let form = format!("form_token={}", rig.session().await.form_token);
    for path in paths() {
        for origin in ["http://evil.example", "null", "http://localhost:9090"] {
            let origin = format!("origin: {origin}");
            let headers = [OWN_FORM[0], &origin, OWN_FORM[2]];
            let line = format!("POST {path}");
            let answer = rig.request(&line, &headers, &form).await;
            assert_eq!(answer.status, 403, "{line} {origin}");
        }
    }
    assert!(rig.commands.try_recv().is_err());
}

#[tokio::test]
async fn a_wrong_method() {
    let rig = Rig::new(sample::every_state()).await;
    let token = rig.access.make_token([127, 0, 0, 1].into(), "x").await;
    let bearer = format!("authorization: Bearer {}", token.unwrap().expose());
    let form = format!("form_token={}", rig.session().await.form_token);
    for path in paths() {
        let headers = [&OWN_FORM[..], &[&bearer]].concat();
        let answer = rig.request(&format!("PUT {path}"), &headers, &form).await;
        assert_eq!(answer.status, 405, "{path}");
        assert!(answer.header("allow").is_some(), "{path}");
    }
}

#[tokio::test]
async fn a_form_without_its_token_or_too_large() {
    let mut rig = Rig::new(sample::every_state()).await;
    let guarded = |path: &&String| !is_open(path) && !is_for_programs(path);
    let large = format!(
        "form_token={}&x={}",
        rig.session().await.form_token,
        "x".repeat(100_000)
    );
    for path in paths().iter().filter(guarded) {
        let line = format!("POST {path}");
        for (body, status) in [("form_token=x", 403), ("", 403), (large.as_str(), 413)] {
            let answer = rig.request(&line, &OWN_FORM, body).await;
            assert_eq!(answer.status, status, "{line}");
        }
    }
    for path in ["/claim", "/sign-in"] {
        let line = format!("POST {path}");
        let answer = rig.stranger(&line, &OWN_FORM, &large).await;
        assert_eq!(answer.status, 413, "{line}");
    }
    assert!(rig.commands.try_recv().is_err());
}

#[tokio::test]
async fn garbage() {
    let rig = Rig::new(sample::every_state()).await;
    let token = rig.session().await.form_token.clone();
    for path in paths().iter().filter(|path| !is_stream(path)) {
        let form = format!("form_token={token}&%ff=%00&=&&key=%f0%28&name=%ff&password=%ff");
        for (line, body) in [
            (
                format!("GET {path}?%ff=%00&a=%01&&=&outcome=%3Cscript%3E"),
                "",
            ),
            (format!("POST {path}"), form.as_str()),
        ] {
            // Those would end the session.
            if line.contains("sign-out") || line.contains("sessions") {
                continue;
            }
            let answer = rig.request(&line, &OWN_FORM, body).await;
            assert!(answer.status < 500, "{line}: {}", answer.head);
            assert!(!answer.body.contains("<script>"), "{line}");
        }
    }
    assert_eq!(rig.get("/").await.status, 200);
}
