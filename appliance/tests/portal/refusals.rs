//! What must not get through.

use super::{rig::Rig, sample};

const PATHS: [&str; 6] = [
    "/",
    "/events",
    "/assets/style.css",
    "/healthz",
    "/api/v1/status",
    "/nothing",
];

#[tokio::test]
async fn foreign_hosts_are_refused_everywhere() {
    let mut rig = Rig::new(sample::every_state()).await;
    for host in [
        "evil.example",
        "usbip-pi.local.evil.example:8080",
        "<b>",
        "",
    ] {
        let header = format!("host: {host}");
        for path in PATHS {
            let answer = rig.request(&format!("GET {path}"), &[&header], "").await;
            assert!(
                [400, 403].contains(&answer.status),
                "{host} {path}: {}",
                answer.head
            );
            assert!(!answer.body.contains("Arduino"), "{host} {path}");
        }
        let origin = format!("origin: http://{host}");
        let answer = rig
            .request("POST /attach-all", &[&header, &origin], "")
            .await;
        assert!(
            [400, 403].contains(&answer.status),
            "{host}: {}",
            answer.head
        );
    }
    assert_eq!(rig.request("GET /", &[], "").await.status, 400);
    let two = ["host: localhost", "host: evil.example"];
    assert_eq!(rig.request("GET /", &two, "").await.status, 400);
    assert!(rig.commands.try_recv().is_err());
}

#[tokio::test]
async fn own_hosts_are_not() {
    let rig = Rig::new(sample::empty()).await;
    for host in [
        "usbip-pi",
        "usbip-pi.local:8080",
        "10.0.0.7:8080",
        "[fe80::1]:8080",
        "pi.lab.example",
    ] {
        let header = format!("host: {host}");
        let answer = rig.request("GET /", &[&header], "").await;
        assert_eq!(answer.status, 200, "{host}");
    }
}

#[tokio::test]
async fn changes_from_elsewhere_are_refused() {
    let mut rig = Rig::new(sample::connected()).await;
    let refused: [&[&str]; 7] = [
        &[],
        &["origin: http://evil.example"],
        &["origin: null"],
        &["origin: http://localhost:9090"],
        &[
            "origin: http://localhost:8080",
            "origin: http://evil.example",
        ],
        &["sec-fetch-site: cross-site"],
        &["origin: http://evil.example", "sec-fetch-site: same-origin"],
    ];
    for extra in refused {
        let headers = [&["host: localhost:8080"], extra].concat();
        let answer = rig.request("POST /attach-all", &headers, "").await;
        assert_eq!(answer.status, 403, "{extra:?}");
    }
    assert!(rig.commands.try_recv().is_err());
    for extra in [
        "origin: http://localhost:8080",
        "sec-fetch-site: same-origin",
    ] {
        let form = format!("form_token={}", rig.session().await.form_token);
        let headers = ["host: localhost:8080", extra];
        let answer = rig.request("POST /attach-all", &headers, &form).await;
        assert_eq!(answer.status, 303, "{extra}");
        assert!(rig.commands.try_recv().is_ok());
    }
}

#[tokio::test]
async fn wrong_methods_are_named() {
    let mut rig = Rig::new(sample::connected()).await;
    // Programs need a token for that, which is asked for first.
    assert_eq!(rig.post("/api/v1/status").await.status, 401);
    for path in &PATHS[..4] {
        let answer = rig.post(path).await;
        assert_eq!(answer.status, 405, "{path}");
        assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{path}");
    }
    let answer = rig.get("/attach-all").await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("allow"), Some("POST"));
    assert!(rig.commands.try_recv().is_err());
    assert_eq!(rig.get("/nothing").await.status, 404);
    for path in [
        "/assets/nothing",
        "/assets/../Cargo.toml",
        "/assets/%2e%2e%2fCargo.toml",
    ] {
        assert_eq!(rig.get(path).await.status, 404, "{path}");
    }
    let head = rig.request("HEAD /", &["host: localhost"], "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn large_bodies_are_refused() {
    let mut rig = Rig::new(sample::connected()).await;
    let headers = ["host: localhost", "origin: http://localhost"];
    let answer = rig
        .request("POST /attach-all", &headers, &"x".repeat(100_000))
        .await;
    assert_eq!(answer.status, 413);
    let chunks = format!("1000\r\n{}\r\n", "x".repeat(0x1000)).repeat(10) + "0\r\n\r\n";
    let cookie = &rig.session().await.cookie;
    let head = format!(
        "POST /attach-all HTTP/1.1\r\nhost: localhost\r\norigin: http://localhost\r\n\
         cookie: {cookie}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
    let answer = rig.raw((head + &chunks).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(rig.commands.try_recv().is_err());
}

#[tokio::test]
async fn garbage_disturbs_nobody() {
    let rig = Rig::new(sample::connected()).await;
    for garbage in [
        &b"\x00\x01\x02\x03\xff\xfe\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /%ff%fe?\xc3 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        b"POST /attach-all HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST /attach-all HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\
          transfer-encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let answer = rig.raw(garbage).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
    let huge = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n",
        "y".repeat(300_000)
    );
    let answer = rig.raw(huge.as_bytes()).await;
    assert!(!answer.starts_with("HTTP/1.1 2"), "{}", &answer[..100]);
    assert_eq!(rig.get("/?outcome=%3Cscript%3E").await.status, 200);
    assert_eq!(rig.get("/").await.status, 200);
}

#[tokio::test]
async fn every_answer_tells_the_browser_to_be_strict() {
    let mut rig = Rig::new(sample::connected()).await;
    rig.commands.close();
    let mut answers = Vec::new();
    for path in ["/", "/assets/style.css", "/healthz", "/api/v1/status"] {
        answers.push(rig.get(path).await);
    }
    answers.push(rig.get("/nothing").await);
    answers.push(rig.post("/attach-all").await);
    answers.push(rig.get("/attach-all").await);
    answers.push(rig.request("GET /", &["host: evil.example"], "").await);
    for answer in answers {
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        assert!(!policy.contains("unsafe"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("same-origin"));
    }
}
