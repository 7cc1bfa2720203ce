//! Server-sent events of the page about the VM: its live part, then again after each change.

use std::{collections::BTreeMap, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Bytes},
};
use futures_util::stream;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{
    Context,
    assets::BUILD,
    guard::visitor::Visitor,
    live::{ALIVE, Live, SHORTEST, event, full, stream_of},
    page::vm::{Target, live_part},
    pairing,
};
use crate::{manager::View, vm::discovery::Found};

/// `GET /vm/events`, for the VM that the page's form has.
pub(super) async fn events(
    request: HttpRequest,
    context: web::Data<Context>,
    live: web::Data<Live>,
    visitor: Visitor,
) -> HttpResponse {
    let Some(place) = live.place() else {
        return full();
    };
    let reader = Reader {
        target: pairing::target(&request, &context),
        visitor,
        view: context.view.clone(),
        news: context.pairer.diagnoses.news(),
        network: context.pairer.discovery.changes(),
        context: context.get_ref().clone(),
        next: None,
        _place: place,
    };
    stream_of(stream::unfold(reader, |mut reader| async {
        let event = reader.next().await?;
        Some((event, reader))
    }))
}

struct Reader {
    context: Context,
    target: Target,
    /// Nothing is sent after the end of their session.
    visitor: Visitor,
    view: watch::Receiver<Arc<View>>,
    news: watch::Receiver<u64>,
    network: watch::Receiver<BTreeMap<String, Found>>,
    /// When the next event may be sent; none before the first.
    next: Option<Instant>,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    /// The next event; none when the manager or the session has ended.
    async fn next(&mut self) -> Option<Bytes> {
        let mut first = Vec::new();
        self.context.pairer.discovery.look();
        if let Some(next) = self.next {
            let changed = tokio::select! {
                () = sleep(ALIVE) => None,
                changed = self.view.changed() => Some(changed),
                changed = self.news.changed() => Some(changed),
                changed = self.network.changed() => Some(changed),
            };
            if !self.context.access.is_open(&self.visitor.key) {
                return None;
            }
            let Some(changed) = changed else {
                return Some(event("alive", ""));
            };
            changed.ok()?;
            sleep_until(next).await;
        } else {
            first.extend_from_slice(&event("build", &BUILD));
        }
        self.view.mark_unchanged();
        self.news.mark_unchanged();
        self.network.mark_unchanged();
        self.next = Some(Instant::now() + SHORTEST);
        let html = live_part(&self.context, &self.visitor, &self.target).into_string();
        first.extend_from_slice(&event("picture", &html));
        Some(first.into())
    }
}
