//! What happened, for people and programs.

use std::collections::BTreeSet;

use appliance::{
    history::{Event, Kind, Subject},
    manager::View,
};
use serde_json::Value;

use super::{
    past,
    rig::{Rig, access_config},
    sample,
};

/// A portal that tells of [`past::history`].
async fn rig(view: View) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let access = access_config(dir.path());
    Rig::with_store(view, dir, access, past::history()).await
}

fn hostile() -> Event {
    let device = sample::device("1-3", "=HYPERLINK(\"http://192.0.2.1\",\"<b>x</b>\")").facts;
    let event = Event::new(Kind::Failed).about(Subject::of(&device));
    event.saying("line one\r\n<script>alert(1)</script>, \"two\" \u{202e}")
}

#[tokio::test]
async fn the_page_tells_what_happened() {
    let rig = rig(sample::every_state()).await;
    let page = rig.get("/history").await;
    assert_eq!(page.status, 200);
    for text in [
        "Plugged in",
        "CP2102N USB to UART Bridge Controller",
        "/dev/ttyUSB0",
        "plug to tty 418 ms (import 21, attach 1, enumerate 180, tty 95 ms)",
        "from 192.0.2.99",
        "only the paired VM may import",
        "paired with dev@build-vm.local",
        "the time was worked out later",
        "Plugged in now, at 1-1",
    ] {
        assert!(page.body.contains(text), "{text}: {}", page.body);
    }
    // 500 refusals are few rows.
    assert!(page.body.matches("from 192.0.2.99").count() < 10);
    assert!(page.body.contains("×"));
}

#[tokio::test]
async fn hostile_texts_are_harmless_everywhere() {
    let rig = rig(sample::every_state()).await;
    rig.history.append(hostile());
    let page = rig.get("/history").await.body;
    assert!(
        !page.contains("<script>alert") && !page.contains("<b>x"),
        "{page}"
    );
    assert!(!page.contains('\u{202e}'));
    assert!(page.contains("line one  &lt;script&gt;"), "{page}");
    let csv = rig.get("/history.csv?kind=failed").await.body;
    let line = csv.lines().last().unwrap();
    assert!(
        line.contains(",\"'=HYPERLINK(\"\"http://192.0.2.1\"\",\"\"<b>x</b>\"\")\","),
        "{line}"
    );
    assert!(
        line.contains(",\"line one  <script>alert(1)</script>, \"\"two\"\" \u{fffd}\","),
        "{line}"
    );
    // Programs get what the device sent.
    let json = rig.get("/history.json?kind=failed").await.body;
    let json: Vec<Value> = serde_json::from_str(&json).unwrap();
    let last = json.last().unwrap();
    assert!(
        last["message"]
            .as_str()
            .unwrap()
            .ends_with("\"two\" \u{202e}")
    );
}

/// The address that a link on a page leads to.
fn link(page: &str, name: &str) -> Option<String> {
    let (before, _) = page.split_once(&format!(">{name}</a>"))?;
    let (_, link) = before.rsplit_once("<a href=\"")?;
    let (address, _) = link.split_once('"')?;
    Some(address.replace("&amp;", "&"))
}

fn moments(page: &str) -> Vec<String> {
    let list = page
        .split_once("<ol")
        .unwrap()
        .1
        .split_once("</ol>")
        .unwrap()
        .0;
    let times = list.split("<div class=\"when\"><time datetime=\"").skip(1);
    times
        .map(|time| time.split_once('"').unwrap().0.to_owned())
        .collect()
}

#[tokio::test]
async fn pages_lead_down_to_the_first_event_and_back() {
    let rig = rig(sample::empty()).await;
    for n in 0..180u8 {
        let peer = [198, 51, 100, n].into();
        for kind in Kind::ALL {
            rig.history.append(Event::new(*kind).by(peer));
        }
    }
    let total = serde_json::from_str::<Vec<Value>>(&rig.get("/history.json").await.body)
        .unwrap()
        .len();
    let (mut address, mut found, mut path) = ("/history".to_owned(), 0, Vec::new());
    loop {
        let page = rig.get(&address).await.body;
        found += moments(&page).len();
        path.push((address, moments(&page)));
        match link(&page, "Older") {
            Some(older) => address = older,
            None => break,
        }
    }
    assert!(
        path.len() > 3 && found == total,
        "{} pages, {found} of {total}",
        path.len()
    );
    // Back up again.
    let (last, _) = path.pop().unwrap();
    let page = rig.get(&last).await.body;
    let newer = rig.get(&link(&page, "Newer").unwrap()).await.body;
    assert_eq!(moments(&newer), path.last().unwrap().1);
    assert_eq!(link(&newer, "Newest").as_deref(), Some("/history"));
}

#[tokio::test]
async fn filters_narrow_it_down() {
    let rig = rig(sample::empty()).await;
    let page = rig
        .get("/history?kind=session_up&device=&from=&to=")
        .await
        .body;
    assert_eq!(moments(&page).len(), 2);
    assert!(page.contains("<option value=\"session_up\" selected>"));
    assert!(page.contains("/history.csv?kind=session_up"));
    let all = rig.get("/history").await.body;
    let device = link(&all, "<bdi>CP2102N USB to UART Bridge Controller</bdi>").unwrap();
    let page = rig.get(&device).await.body;
    assert!(
        page.contains("Attached") && !page.contains("Session up</strong>"),
        "{page}"
    );
    let day = moments(&page)[0].split_once('T').unwrap().0.to_owned();
    let page = rig.get(&format!("/history?from={day}&to={day}")).await.body;
    assert!(!moments(&page).is_empty());
    let page = rig.get("/history?to=2026-08-01").await.body;
    assert!(page.contains("Nothing like that has happened"), "{page}");
}

#[tokio::test]
async fn a_wrong_filter_is_said_with_what_would_be_right() {
    let rig = rig(sample::empty()).await;
    let page = rig.get("/history?from=30.9.2026").await;
    assert_eq!(page.status, 400);
    assert!(
        page.body
            .contains("&quot;30.9.2026&quot; is no day. It has to be year-month-day"),
        "{}",
        page.body
    );
    for path in ["/history.csv?kind=x", "/history.json?kind=x"] {
        let answer = rig.get(path).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(
            answer.body.contains("one of plugged, found"),
            "{}",
            answer.body
        );
    }
    for path in ["kind=x", "after=x", "limit=-1", "from=tomorrow"] {
        let answer = rig.get(&format!("/api/v1/events?{path}")).await;
        assert_eq!(answer.status, 400, "{path}");
        let error: Value = serde_json::from_str(&answer.body).unwrap();
        assert!(
            error["error"].is_string() && error["remedy"].is_string(),
            "{error}"
        );
    }
    for path in [
        "/history?%ff&=&device=%00%ff",
        "/api/v1/events?&&colour=blue",
    ] {
        assert_eq!(rig.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_program_follows_the_events_with_a_cursor() {
    let rig = rig(sample::empty()).await;
    let get = async |query: &str| -> Value {
        let answer = rig.get(&format!("/api/v1/events?{query}")).await;
        serde_json::from_str(&answer.body).unwrap()
    };
    let (mut next, mut seen) = (0, Vec::new());
    loop {
        let answer = get(&format!("after={next}&limit=7")).await;
        let events = answer["events"].as_array().unwrap();
        assert!(events.len() <= 7);
        seen.extend(
            events
                .iter()
                .map(|event| event["sequence"].as_i64().unwrap()),
        );
        next = answer["next"].as_i64().unwrap();
        if answer["more"] == false {
            assert_eq!(answer["newest"], next);
            break;
        }
    }
    assert!(seen.is_sorted() && seen.iter().collect::<BTreeSet<_>>().len() == seen.len());
    rig.history.append(Event::new(Kind::Stopped));
    let answer = get(&format!("after={next}")).await;
    assert_eq!(answer["events"][0]["kind"], "stopped");
    assert_eq!(answer["events"][0]["clock"], "set");
    // Looking for something rare does not look at the same events again and again.
    let answer = get("kind=session_lost").await;
    assert_eq!(answer["events"].as_array().unwrap().len(), 1);
    assert_eq!(answer["next"], next + 1);
    // A cursor of a history that was lost.
    let answer = get("after=1000000").await;
    assert!(
        answer["newest"].as_i64() < answer["next"].as_i64(),
        "{answer}"
    );
    let attached = get("kind=attached").await["events"][0].clone();
    assert_eq!(attached["attached"]["ttys"][0], "/dev/ttyUSB0");
    assert_eq!(attached["device"]["busid"], "1-1.2");
    assert!(attached["time"].as_str().unwrap().ends_with('Z'));

    let devices: Value = serde_json::from_str(&rig.get("/api/v1/devices").await.body).unwrap();
    let first = &devices["devices"][0];
    assert!(
        first["identity"].is_string() && first["plugs"] == 1,
        "{first}"
    );
}

#[tokio::test]
async fn files_have_every_event_once() {
    let rig = rig(sample::empty()).await;
    let csv = rig.get("/history.csv").await;
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
    let disposition = csv.header("content-disposition").unwrap();
    assert!(disposition.starts_with("attachment"), "{disposition}");
    assert!(csv.body.contains("sequence,time,clock,"), "{}", csv.body);
    let json = rig.get("/history.json").await;
    let events: Vec<Value> = serde_json::from_str(&json.body).unwrap();
    assert!(events.len() > 10);
    assert_eq!(csv.body.matches("\r\n").count(), events.len() + 1);
    let none: Vec<Value> =
        serde_json::from_str(&rig.get("/history.json?kind=update").await.body).unwrap();
    assert_eq!(none, Vec::<Value>::new());
}

#[tokio::test]
async fn reading_is_all_there_is() {
    let rig = rig(sample::empty()).await;
    let stranger = async |path: &str| {
        let line = format!("GET {path}");
        rig.stranger(&line, &["host: localhost:8080"], "")
            .await
            .status
    };
    for path in ["/history", "/history.csv", "/history.json"] {
        assert_eq!(rig.post(path).await.status, 405, "{path}");
        assert_eq!(stranger(path).await, 303, "{path}");
    }
    for path in ["/api/v1/events", "/api/v1/devices"] {
        assert_eq!(stranger(path).await, 401, "{path}");
    }
}
