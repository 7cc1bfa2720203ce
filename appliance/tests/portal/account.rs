//! The account page: password, browsers, tokens.

use appliance::history::{Cursor, Filter, Kind, Options, Store};

use super::{
    rig::{Answer, PASSWORD, Rig, access_config},
    sample,
};

const OTHER: &str = "another good password";

async fn sign_in(rig: &Rig, password: &str) -> Answer {
    let form = [("password", password)];
    rig.stranger_form("/sign-in", &form).await
}

/// Change the password as the form does.
async fn change(rig: &Rig, old: &str, new: &str, again: &str) -> Answer {
    let form = [("old", old), ("password", new), ("again", again)];
    rig.post_form("/account/password", &form).await
}

/// The token that an answer shows.
fn token(answer: &Answer) -> String {
    let (_, rest) = answer.body.split_once("id=\"token\"").unwrap();
    let (_, rest) = rest.split_once("<code>").unwrap();
    rest.split_once('<').unwrap().0.to_owned()
}

/// The values of a form's hidden field `key`.
fn keys(page: &str) -> Vec<String> {
    let parts = page.split("name=\"key\" value=\"").skip(1);
    parts.map(|part| part[..64].to_owned()).collect()
}

#[tokio::test]
async fn the_password_is_changed_and_other_browsers_signed_out() {
    let rig = Rig::new(sample::empty()).await;
    rig.session().await;
    let other = rig.session_of(&sign_in(&rig, PASSWORD).await).await;

    for (old, new, again, status, sentence) in [
        ("wrong", OTHER, OTHER, 403, "not the password"),
        (PASSWORD, "short", "short", 422, "5 of at least 10"),
        (PASSWORD, OTHER, "else", 422, "not the same"),
    ] {
        let answer = change(&rig, old, new, again).await;
        assert_eq!(answer.status, status, "{old} {new}");
        assert!(answer.body.contains(sentence), "{}", answer.body);
    }
    let answer = change(&rig, PASSWORD, OTHER, OTHER).await;
    assert_eq!(answer.status, 303);
    let page = rig.get(answer.header("location").unwrap()).await;
    assert!(page.body.contains("The password was changed"));

    let cookie = format!("cookie: {}", other.cookie);
    let page = rig
        .stranger("GET /", &["host: localhost", &cookie], "")
        .await;
    assert_eq!(page.status, 303);
    assert_eq!(sign_in(&rig, PASSWORD).await.status, 403);
    assert_eq!(sign_in(&rig, OTHER).await.status, 303);
}

#[tokio::test]
async fn browsers_are_listed_and_signed_out() {
    let rig = Rig::new(sample::empty()).await;
    rig.session().await;
    let other = rig.session_of(&sign_in(&rig, PASSWORD).await).await;
    let page = rig.get("/account").await.body;
    let (all, own) = (keys(&page), page.matches("this one").count());
    assert_eq!((all.len(), own), (2, 1), "{page}");
    // The cookies themselves are nowhere.
    assert!(!page.contains(other.cookie.strip_prefix("usbip-pi=").unwrap()));

    // The page lists the latest used first, which is the one that asks.
    let answer = rig
        .post_form("/account/sessions/end", &[("key", &all[1])])
        .await;
    let page = rig.get(answer.header("location").unwrap()).await.body;
    assert_eq!(keys(&page), all[..1]);
    for garbage in ["", "x", &"ff".repeat(32), &"é".repeat(32)] {
        let answer = rig
            .post_form("/account/sessions/end", &[("key", garbage)])
            .await;
        assert_eq!(answer.status, 303);
    }
    let answer = rig.post("/account/sessions/end-all").await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, Some("/sign-in"))
    );
    assert_eq!(rig.get("/account").await.status, 303);
}

#[tokio::test]
async fn tokens_are_made_used_and_removed() {
    let rig = Rig::new(sample::every_state()).await;
    let made = rig.post_form("/account/tokens", &[("name", " CI ")]).await;
    assert_eq!(made.status, 200);
    let secret = token(&made);
    let page = rig.get("/account").await.body;
    assert!(page.contains("<b>CI</b>") && page.contains("never used"));
    assert!(!page.contains(&secret), "shown again");

    let ask = async |line: &str, authorization: &str| {
        let header = format!("authorization: {authorization}");
        rig.stranger(line, &["host: localhost", &header], "").await
    };
    for right in [format!("Bearer {secret}"), format!("bearer {secret}")] {
        let answer = ask("GET /api/v1/status", &right).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body.contains("Arduino"));
    }
    for wrong in [
        String::new(),
        secret.clone(),
        format!("Basic {secret}"),
        format!("Bearer x{secret}"),
        "Bearer ".into(),
    ] {
        let answer = ask("GET /api/v1/status", &wrong).await;
        assert_eq!(answer.status, 401, "{wrong}");
    }
    // It is for programs, not for pages.
    assert_eq!(ask("GET /", &format!("Bearer {secret}")).await.status, 303);
    let page = rig.get("/account").await.body;
    assert!(page.contains("last used just now"), "{page}");

    let same = rig.post_form("/account/tokens", &[("name", "CI")]).await;
    assert_eq!(same.status, 409);
    assert!(same.body.contains("of this name already") && same.body.contains("value=\"CI\""));
    let nameless = rig.post_form("/account/tokens", &[("name", " ")]).await;
    assert_eq!(nameless.status, 422);

    let key = &keys(&page)[0];
    let answer = rig
        .post_form("/account/tokens/remove", &[("key", key)])
        .await;
    assert_eq!(answer.status, 303);
    let answer = ask("GET /api/v1/status", &format!("Bearer {secret}")).await;
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn hostile_names_are_shown_harmlessly() {
    let rig = Rig::new(sample::empty()).await;
    let name = "\"'><script>alert(1)</script>\u{202e}x\n<img src=x>";
    let made = rig.post_form("/account/tokens", &[("name", name)]).await;
    let page = rig.get("/account").await;
    let wrong = rig.post_form("/account/tokens", &[("name", name)]).await;
    assert_eq!((made.status, wrong.status), (200, 409));
    for body in [made.body, page.body, wrong.body] {
        assert!(body.contains("&lt;script&gt;alert(1)"), "{body}");
        assert!(!body.contains("<script>alert") && !body.contains("<img"));
        assert!(!body.contains('\u{202e}') && !body.contains("x\n&lt;"));
    }
}

#[tokio::test]
async fn sessions_and_tokens_survive_a_restart_and_a_reset_ends_them() {
    let dir = tempfile::tempdir().unwrap();
    let (database, config) = (dir.path().join("history.db"), access_config(dir.path()));
    let store = Store::open_with(&database, Options::default()).await;
    let rig = Rig::with_store(sample::empty(), dir, config.clone(), store.clone()).await;
    let cookie = format!("cookie: {}", rig.session().await.cookie);
    let made = rig.post_form("/account/tokens", &[("name", "CI")]).await;
    let bearer = format!("authorization: Bearer {}", token(&made));
    store.close().await;
    let dir = rig.dir;

    let store = Store::open_with(&database, Options::default()).await;
    let rig = Rig::with_store(sample::empty(), dir, config.clone(), store.clone()).await;
    let page = rig
        .stranger("GET /", &["host: localhost", &cookie], "")
        .await;
    assert_eq!(page.status, 200);
    let status = ["host: localhost", &bearer];
    let answer = rig.stranger("GET /api/v1/status", &status, "").await;
    assert_eq!(answer.status, 200);
    store.close().await;
    let dir = rig.dir;

    std::fs::write(&config.reset, "").unwrap();
    let store = Store::open_with(&database, Options::default()).await;
    let rig = Rig::with_store(sample::empty(), dir, config, store.clone()).await;
    let page = rig
        .stranger("GET /", &["host: localhost", &cookie], "")
        .await;
    assert_eq!(page.header("location"), Some("/claim"));
    let answer = rig.stranger("GET /api/v1/status", &status, "").await;
    assert_eq!(answer.status, 401);
    store.close().await;
    let store = Store::open_with(&database, Options::default()).await;
    assert_eq!(store.recall_access(), []);
    store.close().await;
}

#[tokio::test]
async fn the_history_tells_who_came_in_and_no_secrets() {
    let rig = Rig::new(sample::empty()).await;
    rig.session().await;
    sign_in(&rig, "a wrong password").await;
    sign_in(&rig, PASSWORD).await;
    let made = rig.post_form("/account/tokens", &[("name", "CI")]).await;
    let secret = token(&made);
    change(&rig, PASSWORD, OTHER, OTHER).await;
    let reading = rig
        .history
        .events(&Filter::default(), Cursor::After(0), 100)
        .await;
    let kinds = reading.records.iter().map(|record| record.event.kind);
    assert_eq!(
        kinds.collect::<Vec<_>>(),
        [
            Kind::Password,
            Kind::SignInFailed,
            Kind::SignIn,
            Kind::Token,
            Kind::Password
        ]
    );
    for record in &reading.records {
        assert!(record.event.peer.unwrap().is_loopback());
        let text = format!("{record:?}");
        for secret in [PASSWORD, OTHER, "a wrong password", &secret] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
