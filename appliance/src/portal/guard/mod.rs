//! What every request must pass, in this order:
//!
//! - [`headers`]: what every answer says to the browser, also those of the other guards
//! - [`host`]: the name under which the portal was called must be one of its own
//! - [`origin`]: what changes something must come from one of its own pages
//! - [`visitor`]: who asks, and whether they may

use actix_web::http::Method;

mod body;
pub(super) mod headers;
pub(super) mod host;
pub(super) mod origin;
pub(super) mod visitor;

/// Whether requests of this method change nothing.
fn reads(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
}
