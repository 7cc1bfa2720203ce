use super::*;
use protocol::line::VmStatus;
use tokio::io::{AsyncBufReadExt, BufReader, DuplexStream, split};

type Far = BufReader<DuplexStream>;

/// Runs a conversation against the other end of a pipe; time is virtual.
fn start() -> (
    Far,
    mpsc::Sender<Request>,
    mpsc::Receiver<Event>,
    tokio::task::JoinHandle<End>,
) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (requests, mut queue) = mpsc::channel(64);
    let (events, heard) = mpsc::channel(64);
    let (source, sink) = split(near);
    let task = tokio::spawn(async move {
        let mut conversation = Conversation::new(Lines::new(source), sink);
        let end = conversation.run(&mut queue, &events).await;
        conversation.fail_pending("over", &events).await;
        end
    });
    (BufReader::new(far), requests, heard, task)
}

async fn line(far: &mut Far) -> String {
    let mut text = String::new();
    far.read_line(&mut text).await.unwrap();
    text
}

async fn say(far: &mut Far, text: &str) {
    far.get_mut().write_all(text.as_bytes()).await.unwrap();
}

fn busid() -> protocol::BusId {
    "1-1".parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn answers_find_their_requests_in_any_order() {
    let (mut far, requests, mut events, _task) = start();
    let connect = Request::Connect(busid(), None);
    requests.send(connect.clone()).await.unwrap();
    requests.send(Request::Status).await.unwrap();
    assert_eq!(line(&mut far).await, "connect 1-1\n");
    assert_eq!(line(&mut far).await, "status\n");
    say(&mut far, "{\"re\":\"status\",\"status\":{\"boot_id\":\"b\",\"attachments\":[],\"ports_free\":3,\"ports_total\":8}}\n").await;
    say(&mut far, "{\"re\":\"connect 1-1\",\"attached\":{\"busid\":\"1-1\",\"devid\":\"00010002\",\"port\":0}}\n").await;
    say(
        &mut far,
        "{\"settled\":{\"busid\":\"1-1\",\"devid\":\"00010002\",\"port\":0}}\n",
    )
    .await;
    let first = events.recv().await.unwrap();
    let Event::Reply {
        request: Request::Status,
        answer: Answer::Status(VmStatus { ports_free: 3, .. }),
    } = first
    else {
        panic!("{first:?}");
    };
    let second = events.recv().await.unwrap();
    assert!(
        matches!(second, Event::Reply { request, answer: Answer::Attached(_) } if request == connect)
    );
    assert!(matches!(events.recv().await, Some(Event::Settled(_))));
}

#[tokio::test(start_paused = true)]
async fn silence_is_noticed_within_five_seconds_and_answers_what_is_open() {
    let (mut far, requests, mut events, task) = start();
    let began = Instant::now();
    requests.send(Request::Check).await.unwrap();
    assert!(matches!(task.await.unwrap(), End::Silent));
    let seconds = began.elapsed().as_secs_f64();
    assert!((4.0..5.0).contains(&seconds), "{seconds}");
    assert_eq!(line(&mut far).await, "check\n");
    assert_eq!(line(&mut far).await, "ping\n");
    let open = events.recv().await.unwrap();
    assert!(
        matches!(open, Event::Reply { request: Request::Check, answer: Answer::Error(f) } if f.kind == FailureKind::Timeout)
    );
    assert!(events.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_live_helper_that_never_answers_a_request_does_not_hold_it_for_ever() {
    let (mut far, requests, mut events, task) = start();
    tokio::spawn(async move {
        loop {
            match line(&mut far).await.as_str() {
                "ping\n" => say(&mut far, "{\"re\":\"ping\",\"pong\":{}}\n").await,
                "" => return,
                _ => {}
            }
        }
    });
    let began = Instant::now();
    requests
        .send(Request::Connect(busid(), None))
        .await
        .unwrap();
    requests.send(Request::Status).await.unwrap();
    for (seconds, part) in [(5, "status within 5 s"), (15, "connect 1-1 within 15 s")] {
        let event = events.recv().await.unwrap();
        let Event::Reply {
            answer: Answer::Error(failure),
            ..
        } = event
        else {
            panic!("{event:?}");
        };
        assert!(failure.message.contains(part), "{}", failure.message);
        assert_eq!(began.elapsed().as_secs(), seconds);
    }
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(!task.is_finished());
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn three_foreign_lines_in_a_row_or_an_endless_one_end_it() {
    let (mut far, _requests, _events, task) = start();
    say(
        &mut far,
        "x\n\u{1b}[2J\n{\"re\":\"ping\",\"pong\":{}}\nx\n{\"news\":[1]}\ny\n",
    )
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!task.is_finished());
    say(&mut far, "z\n").await;
    assert!(matches!(task.await.unwrap(), End::Babble));

    let (mut far, _requests, _events, task) = start();
    say(&mut far, &"x".repeat(protocol::line::MAX_LINE + 2)).await;
    assert!(matches!(task.await.unwrap(), End::Babble));
}

#[tokio::test(start_paused = true)]
async fn late_answers_are_dropped() {
    let (mut far, _requests, mut events, task) = start();
    say(&mut far, "{\"re\":\"connect 1-1\",\"attached\":{\"busid\":\"1-1\",\"devid\":\"00010002\",\"port\":0}}\n").await;
    drop(far);
    assert!(matches!(task.await.unwrap(), End::Closed | End::Broken(_)));
    assert!(events.recv().await.is_none());
}

#[test]
fn foreign_lines_are_harmless_in_a_log() {
    let text = shown(&format!("\u{1b}[2J{}", "x".repeat(500)));
    assert!(text.starts_with("\\u{1b}[2Jxx"));
    assert!(text.len() < 200);
}
