//! Server-sent events: the live part of the dashboard, then again after each change.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header,
    web::{self, Bytes},
};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{Context, assets::BUILD, guard::visitor::Visitor, page};
use crate::{access::Digest, manager::View};

/// Where events are streamed. A stranger's script is told so there, and not led to another page.
pub(super) const STREAMS: [&str; 3] = ["/events", "/vm/events", "/log/events"];

/// Open pages that are kept up to date; one more works by reloading.
pub const MOST_READERS: usize = 256;

/// Shortest time between two events to one reader. Whatever happens meanwhile is in the next one.
pub(super) const SHORTEST: Duration = Duration::from_millis(100);

/// Longest time between two events. The script takes a longer silence for a lost connection, so
/// these are events that it sees, where a comment would only keep the connection open.
pub(super) const ALIVE: Duration = Duration::from_secs(15);

/// How old a rendered picture may get, because of the times to the next try in it.
const FRESH: Duration = Duration::from_secs(1);

/// What all readers share. Cheap to clone.
#[derive(Clone)]
pub(super) struct Live {
    context: Context,
    places: Arc<Semaphore>,
    rendered: Arc<Mutex<Option<Rendered>>>,
}

/// The latest picture, rendered once for all readers.
struct Rendered {
    view: Arc<View>,
    at: Instant,
    event: Bytes,
}

impl Live {
    pub(super) fn new(context: Context) -> Self {
        Self {
            context,
            places: Arc::new(Semaphore::new(MOST_READERS)),
            rendered: Arc::default(),
        }
    }

    /// Open pages.
    pub(super) fn readers(&self) -> usize {
        MOST_READERS - self.places.available_permits()
    }

    /// A place among them; none when all are taken.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    fn picture(&self, view: &Arc<View>) -> Bytes {
        let mut rendered = self.rendered.lock().unwrap_or_else(PoisonError::into_inner);
        match &*rendered {
            Some(last) if Arc::ptr_eq(&last.view, view) && last.at.elapsed() < FRESH => {
                last.event.clone()
            }
            _ => {
                let html = page::live_part(&self.context, view, None).into_string();
                let event = event("picture", &html);
                *rendered = Some(Rendered {
                    view: Arc::clone(view),
                    at: Instant::now(),
                    event: event.clone(),
                });
                event
            }
        }
    }
}

pub(super) fn event(name: &str, data: &str) -> Bytes {
    // A line break inside would end the event.
    let data = data.replace(['\r', '\n'], " ");
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// `GET /events`; with what the page shows already, a picture follows only where that is no longer the case.
pub(super) async fn events(
    live: web::Data<Live>,
    visitor: Visitor,
    request: HttpRequest,
) -> HttpResponse {
    let Some(place) = live.place() else {
        return full();
    };
    let reader = Reader {
        view: live.context.view.clone(),
        live: live.get_ref().clone(),
        session: visitor.key,
        seen: form_urlencoded::parse(request.query_string().as_bytes())
            .find(|(name, _)| name == page::SEEN)
            .map(|(_, seen)| seen.into_owned()),
        notices: (live.context.notices)(),
        next: None,
        _place: place,
    };
    stream_of(stream::unfold(reader, |mut reader| async {
        let event = reader.next().await?;
        Some((event, reader))
    }))
}

/// An answer of events.
pub(super) fn stream_of(events: impl Stream<Item = Bytes> + 'static) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .streaming(events.map(Ok::<_, Infallible>))
}

/// The answer when all places are taken.
pub(super) fn full() -> HttpResponse {
    HttpResponse::ServiceUnavailable()
        .insert_header((header::RETRY_AFTER, "30"))
        .content_type("text/plain; charset=utf-8")
        .body("Too many pages are open; this one works by reloading.\n")
}

struct Reader {
    live: Live,
    view: watch::Receiver<Arc<View>>,
    /// Nothing is sent after its end.
    session: Digest,
    /// What the page showed when it asked.
    seen: Option<String>,
    /// What is wrong with the box, of which no view tells.
    notices: Vec<String>,
    /// When the next event may be sent; none before the first.
    next: Option<Instant>,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    /// The next event; none when the manager or the session has ended. A slow reader asks later, and then gets
    /// what is the case then.
    async fn next(&mut self) -> Option<Bytes> {
        match self.next {
            None => {
                let view = self.view.borrow_and_update().clone();
                self.next = Some(Instant::now() + SHORTEST);
                let mut first = event("build", &BUILD).to_vec();
                if self.seen != Some(page::seen(&self.live.context, &view)) {
                    first.extend_from_slice(&self.live.picture(&view));
                }
                Some(first.into())
            }
            Some(next) => {
                let changed = timeout(ALIVE, self.view.changed()).await;
                if !self.live.context.access.is_open(&self.session) {
                    return None;
                }
                match changed {
                    Err(_) => {
                        let notices = (self.live.context.notices)();
                        if notices == self.notices {
                            return Some(event("alive", ""));
                        }
                        self.notices = notices;
                    }
                    Ok(changed) => changed.ok()?,
                }
                sleep_until(next).await;
                let view = self.view.borrow_and_update().clone();
                self.next = Some(Instant::now() + SHORTEST);
                Some(self.live.picture(&view))
            }
        }
    }
}
