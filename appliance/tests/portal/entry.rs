//! Claiming, signing in and out, and what a stranger may see.

use std::{fs, time::Duration};

use appliance::{
    access::{Access, Config},
    history::{Options, Store},
};

use super::{
    rig::{Answer, PASSWORD, Rig, access_config},
    sample,
};

const HOST: [&str; 1] = ["host: localhost:8080"];

/// Pages and actions that need a session.
const GUARDED: [&str; 4] = [
    "GET /",
    "GET /nothing",
    "POST /attach-all",
    "POST /sign-out",
];

async fn claim(rig: &Rig, password: &str, again: &str) -> Answer {
    let form = [("password", password), ("again", again)];
    rig.stranger_form("/claim", &form).await
}

async fn sign_in(rig: &Rig, password: &str) -> Answer {
    rig.stranger_form("/sign-in", &[("password", password)])
        .await
}

async fn look(rig: &Rig, path: &str) -> Answer {
    rig.stranger(&format!("GET {path}"), &HOST, "").await
}

#[tokio::test]
async fn until_claimed_every_page_leads_to_the_claim_form() {
    let rig = Rig::new(sample::every_state()).await;
    for path in ["/", "/account", "/nothing", "/sign-in"] {
        let answer = look(&rig, path).await;
        assert_eq!(answer.status, 303, "{path}");
        assert_eq!(answer.header("location"), Some("/claim"), "{path}");
    }
    let page = look(&rig, "/claim").await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("This Pi is new") && page.body.contains("29 minutes"));
    let answer = sign_in(&rig, PASSWORD).await;
    assert_eq!(answer.header("location"), Some("/claim"));
    assert_eq!(look(&rig, "/healthz").await.status, 200);
}

#[tokio::test]
async fn a_bad_first_password_is_refused_with_a_sentence() {
    let rig = Rig::new(sample::empty()).await;
    let long = "x".repeat(300);
    for (password, again, sentence) in [
        ("", "", "has 0 of at least 10 characters"),
        ("short", "short", "has 5 of at least 10 characters"),
        (long.as_str(), long.as_str(), "longer than 200 bytes"),
        ("correct horse", "correct house", "not the same"),
    ] {
        let answer = claim(&rig, password, again).await;
        assert_eq!(answer.status, 422, "{password}");
        assert!(answer.body.contains(sentence), "{}", answer.body);
        assert!(answer.header("set-cookie").is_none());
        assert!(password.is_empty() || !answer.body.contains(password));
    }
    assert_eq!(rig.stranger_form("/claim", &[]).await.status, 422);
    assert_eq!(claim(&rig, PASSWORD, PASSWORD).await.status, 303);
}

#[tokio::test]
async fn it_can_be_claimed_once() {
    let rig = Rig::new(sample::empty()).await;
    let answer = claim(&rig, PASSWORD, PASSWORD).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/")));
    let cookie = answer.header("set-cookie").unwrap();
    for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/", "; Max-Age="] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let again = claim(&rig, "another password", "another password").await;
    assert_eq!(again.header("location"), Some("/sign-in"));
    assert!(again.header("set-cookie").is_none());
    assert_eq!(sign_in(&rig, "another password").await.status, 403);
    assert_eq!(sign_in(&rig, PASSWORD).await.status, 303);
    let kept = fs::read_to_string(rig.dir.path().join("portal/password")).unwrap();
    assert!(kept.starts_with("$argon2id$"), "{kept}");
}

#[tokio::test]
async fn many_claims_at_once_are_one() {
    let rig = Rig::new(sample::empty()).await;
    let (a, b, c) = tokio::join!(
        claim(&rig, "password of a", "password of a"),
        claim(&rig, "password of b", "password of b"),
        claim(&rig, "password of c", "password of c"),
    );
    let won = [a, b, c].map(|answer| answer.header("set-cookie").is_some());
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
    for (won, password) in won
        .iter()
        .zip(["password of a", "password of b", "password of c"])
    {
        assert_eq!(
            sign_in(&rig, password).await.status == 303,
            *won,
            "{password}"
        );
    }
}

#[tokio::test]
async fn the_time_for_claiming_ends() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        uptime: || Duration::from_mins(31),
        ..access_config(folder.path())
    };
    let rig = Rig::with(sample::empty(), folder, config).await;
    assert_eq!(look(&rig, "/").await.header("location"), Some("/claim"));
    let page = look(&rig, "/claim").await.body;
    assert!(
        page.contains("Restart the Pi") && !page.contains("<form"),
        "{page}"
    );
    let answer = claim(&rig, PASSWORD, PASSWORD).await;
    assert_eq!(answer.status, 409);
    assert!(answer.header("set-cookie").is_none());
    assert!(!rig.dir.path().join("portal/password").exists());
}

#[tokio::test]
async fn strangers_see_and_change_nothing() {
    let mut rig = Rig::new(sample::every_state()).await;
    rig.session().await;
    for line in GUARDED {
        for cookie in [
            "x: y",
            "cookie: usbip-pi=",
            "cookie: usbip-pi=AAAA; a=b",
            "cookie: x=y",
        ] {
            let headers = ["host: localhost", "origin: http://localhost", cookie];
            let answer = rig.stranger(line, &headers, "").await;
            let expected = if line.starts_with("GET") { 303 } else { 401 };
            assert_eq!(answer.status, expected, "{line} {cookie}");
            assert!(!answer.body.contains("Arduino"), "{line}");
        }
    }
    let answer = look(&rig, "/events").await;
    assert_eq!(answer.status, 401);
    let answer = look(&rig, "/api/v1/status").await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    let error: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert!(error["error"].is_string() && error["remedy"].as_str().unwrap().contains("account"));
    assert!(rig.commands.try_recv().is_err());
}

#[tokio::test]
async fn signing_in_leads_back() {
    let rig = Rig::new(sample::empty()).await;
    rig.session().await;
    let answer = look(&rig, "/history?kind=attach&page=2").await;
    let location = answer.header("location").unwrap();
    assert_eq!(
        location,
        "/sign-in?return=%2Fhistory%3Fkind%3Dattach%26page%3D2"
    );
    let page = look(&rig, location).await.body;
    assert!(
        page.contains("value=\"/history?kind=attach&amp;page=2\""),
        "{page}"
    );

    for (back, expected) in [
        ("/history?kind=attach&page=2", "/history?kind=attach&page=2"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/\r\nset-cookie: x=y", "/"),
    ] {
        let form = [("password", PASSWORD), ("return", back)];
        let answer = rig.stranger_form("/sign-in", &form).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, Some(expected))
        );
    }
    // Whoever is signed in needs no form.
    let answer = rig.get("/sign-in?return=%2Faccount").await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, Some("/account"))
    );
    let answer = rig.get("/claim").await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, Some("/sign-in"))
    );
}

#[tokio::test]
async fn a_link_elsewhere_leads_on_to_where_the_cookie_is_sent() {
    let rig = Rig::new(sample::empty()).await;
    rig.session().await;
    let headers = ["host: localhost:8080", "sec-fetch-site: cross-site"];
    let ask = async |path: &str| rig.stranger(&format!("GET {path}"), &headers, "").await;
    let page = ask("/sign-in?return=%2Fvm").await;
    assert_eq!(page.status, 200);
    let (_, rest) = page.body.split_once("content=\"0; url=").unwrap();
    let next = rest.split_once('"').unwrap().0.replace("&amp;", "&");
    assert_eq!(next, "/sign-in?return=%2Fvm&again=1");
    assert_eq!(
        rig.get(&next).await.header("location"),
        Some("/vm"),
        "with the cookie"
    );
    // A browser that brings none still gets the form, and once.
    let form = ask(&next).await.body;
    assert!(form.contains("type=\"password\"") && !form.contains("http-equiv=\"refresh"));
}

#[tokio::test]
async fn tries_are_limited() {
    let rig = Rig::new(sample::empty()).await;
    rig.session().await;
    for _ in 0..5 {
        let answer = sign_in(&rig, "a wrong password").await;
        assert_eq!(answer.status, 403);
        assert!(answer.body.contains("not the password") && answer.body.contains("reset-password"));
    }
    let answer = sign_in(&rig, PASSWORD).await;
    assert_eq!(answer.status, 429);
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=13).contains(&wait));
    assert!(answer.body.contains("Too many tries"), "{}", answer.body);
    // Whoever is signed in stays so.
    assert_eq!(rig.get("/").await.status, 200);
}

#[tokio::test]
async fn signing_out_ends_one_session() {
    let rig = Rig::new(sample::empty()).await;
    let (first, answer) = (rig.session().await, sign_in(&rig, PASSWORD).await);
    let second = rig.session_of(&answer).await;
    assert_ne!(first.form_token, second.form_token);
    let answer = rig.post("/sign-out").await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, Some("/sign-in"))
    );
    assert!(answer.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(rig.get("/").await.status, 303);
    let cookie = format!("cookie: {}", second.cookie);
    let page = rig
        .stranger("GET /", &["host: localhost", &cookie], "")
        .await;
    assert_eq!(page.status, 200);
}

#[tokio::test]
async fn changes_need_the_token_of_the_form() {
    let mut rig = Rig::new(sample::connected()).await;
    let answer = {
        rig.session().await;
        sign_in(&rig, PASSWORD).await
    };
    let other = rig.session_of(&answer).await.form_token;
    let own = rig.session().await.form_token.clone();
    let form = "content-type: application/x-www-form-urlencoded";
    for (kind, path, body) in [
        (form, "/attach-all", String::new()),
        (form, "/attach-all", "form_token=".into()),
        (form, "/attach-all", format!("form_token={other}")),
        (form, "/attach-all", format!("token={own}")),
        (
            form,
            &format!("/attach-all?form_token={own}"),
            String::new(),
        ),
        (
            "content-type: text/plain",
            "/attach-all",
            format!("form_token={own}"),
        ),
        (
            "content-type: multipart/form-data",
            "/attach-all?form_token=x",
            "x".into(),
        ),
    ] {
        let headers = ["host: localhost", "origin: http://localhost", kind];
        let answer = rig.request(&format!("POST {path}"), &headers, &body).await;
        assert_eq!(answer.status, 403, "{kind} {path} {body}");
        assert!(answer.body.contains("out of date"));
    }
    assert!(rig.commands.try_recv().is_err());
    assert_eq!(rig.post("/attach-all").await.status, 303);
    assert!(rig.commands.try_recv().is_ok());
}

#[tokio::test]
async fn a_broken_password_file_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = access_config(folder.path());
    fs::create_dir_all(folder.path().join("portal")).unwrap();
    fs::write(&config.password, "garbage").unwrap();
    let rig = Rig::with(sample::empty(), folder, config).await;
    assert_eq!(look(&rig, "/").await.header("location"), Some("/sign-in"));
    let page = look(&rig, "/sign-in").await.body;
    assert!(
        page.contains("Nobody can sign in") && page.contains("reset-password"),
        "{page}"
    );
    assert_eq!(sign_in(&rig, PASSWORD).await.status, 500);
    let answer = claim(&rig, PASSWORD, PASSWORD).await;
    assert_eq!(answer.header("location"), Some("/sign-in"));
    assert_eq!(
        fs::read(rig.dir.path().join("portal/password")).unwrap(),
        b"garbage"
    );
}

#[tokio::test]
async fn a_forgotten_password_is_removed_by_a_file() {
    let rig = Rig::new(sample::empty()).await;
    rig.session().await;
    // Late, so that the time for claiming begins anew.
    let config = Config {
        uptime: || Duration::from_hours(3),
        ..access_config(rig.dir.path())
    };
    fs::write(&config.reset, "").unwrap();
    let again = Access::open(config.clone(), Store::in_memory(Options::default())).await;
    assert!(!config.reset.exists() && !config.password.exists());
    assert!(matches!(again.door(), appliance::access::Door::Claim(_)));
}

#[tokio::test]
async fn a_reset_file_that_stays_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = access_config(folder.path());
    Rig::with(
        sample::empty(),
        tempfile::tempdir().unwrap(),
        config.clone(),
    )
    .await
    .session()
    .await;
    // Not even root can remove a folder that is not empty.
    fs::create_dir_all(config.reset.join("x")).unwrap();
    let rig = Rig::with(sample::empty(), folder, config).await;
    let page = look(&rig, "/sign-in").await.body;
    assert!(page.contains("cannot be removed"), "{page}");
    assert_eq!(sign_in(&rig, PASSWORD).await.status, 303);
}
