//! The live log: its newest lines, and again when there are more.

use std::{convert::Infallible, io, time::Duration};

use actix_web::{
    HttpResponse,
    http::header,
    web::{self, Bytes},
};
use futures_util::stream;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep},
};

use super::{
    Context,
    guard::visitor::Visitor,
    live::{ALIVE, Live, event, full},
    page,
};
use crate::{
    access::Digest,
    system::{KernelLog, kernel_log::Line},
};

/// How often the ring is looked at for a page that is open.
const LOOK: Duration = Duration::from_secs(1);

/// `GET /log`
pub(super) async fn show(visitor: Visitor, context: web::Data<Context>) -> HttpResponse {
    page::log::log(&visitor, &lines(&context.log).await)
}

/// `GET /log/events`
pub(super) async fn events(
    live: web::Data<Live>,
    context: web::Data<Context>,
    visitor: Visitor,
) -> HttpResponse {
    let Some(place) = live.place() else {
        return full();
    };
    let reader = Reader {
        context: context.get_ref().clone(),
        session: visitor.key,
        newest: None,
        sent: Instant::now(),
        _place: place,
    };
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .streaming(stream::unfold(reader, |mut reader| async {
            let event = reader.next().await?;
            Some((Ok::<_, Infallible>(event), reader))
        }))
}

struct Reader {
    context: Context,
    /// Nothing is sent after its end.
    session: Digest,
    /// The newest line that was sent.
    newest: Option<u64>,
    sent: Instant,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    /// The next event; none when the session has ended.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            sleep(LOOK).await;
            if !self.context.access.is_open(&self.session) {
                return None;
            }
            let lines = lines(&self.context.log).await;
            let newest = lines.as_ref().ok().and_then(|lines| lines.last());
            let newest = newest.map(|line| line.sequence);
            if newest != self.newest {
                self.newest = newest;
                self.sent = Instant::now();
                return Some(event("picture", &page::log::live(&lines).into_string()));
            }
            if self.sent.elapsed() > ALIVE {
                self.sent = Instant::now();
                return Some(event("alive", ""));
            }
        }
    }
}

async fn lines(log: &KernelLog) -> io::Result<Vec<Line>> {
    let log = log.clone();
    match web::block(move || log.lines()).await {
        Ok(lines) => lines,
        Err(error) => Err(io::Error::other(error)),
    }
}
