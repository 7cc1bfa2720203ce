//! How long the body of a request may take: one that stays half-sent would keep a place that others need.

use std::{
    future::Future as _,
    io,
    task::{Poll, ready},
    time::Duration,
};

use actix_web::{
    HttpMessage as _,
    dev::{Payload, ServiceRequest},
    error::PayloadError,
};
use futures_util::{StreamExt as _, stream};
use tokio::time::sleep;

/// For all of it; the largest is a few KiB.
const SLOWEST: Duration = Duration::from_secs(10);

/// Let the body fail when it takes too long.
pub(super) fn limit(request: &mut ServiceRequest) {
    let mut payload = request.take_payload();
    let mut late = Box::pin(sleep(SLOWEST));
    let limited = stream::poll_fn(move |context| {
        if let Poll::Ready(part) = payload.poll_next_unpin(context) {
            return Poll::Ready(part);
        }
        ready!(late.as_mut().poll(context));
        let error = io::Error::new(io::ErrorKind::TimedOut, "the body took too long");
        Poll::Ready(Some(Err(PayloadError::Io(error))))
    });
    let payload = Box::pin(limited);
    request.set_payload(Payload::Stream { payload });
}

#[cfg(test)]
mod tests {
    use actix_web::{test::TestRequest, web::Bytes};
    use tokio::time::Instant;

    use super::*;

    fn request(body: &'static [u8], rest: bool) -> ServiceRequest {
        let mut request = TestRequest::post().to_srv_request();
        let begun = stream::iter([Ok(Bytes::from_static(body))]);
        let payload = if rest {
            begun.chain(stream::pending()).boxed_local()
        } else {
            begun.boxed_local()
        };
        request.set_payload(Payload::Stream { payload });
        limit(&mut request);
        request
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stays_half_sent_fails() {
        let whole = request(b"all of it", false).extract::<Bytes>().await;
        assert_eq!(whole.unwrap(), "all of it");
        let start = Instant::now();
        let half = request(b"half", true).extract::<Bytes>().await;
        assert!(half.is_err());
        assert!(start.elapsed() < SLOWEST * 2);
    }
}
