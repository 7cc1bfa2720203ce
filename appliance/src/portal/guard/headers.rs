//! What every answer says to the browser.

use actix_web::middleware::DefaultHeaders;

/// Nothing from elsewhere, nothing inline, no frames. `data:` is for the icon, which is part of the page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
     img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; \
     frame-ancestors 'none'";

/// The headers that every answer has.
pub(in super::super) fn headers() -> DefaultHeaders {
    DefaultHeaders::new()
        .add(("content-security-policy", CONTENT_SECURITY_POLICY))
        .add(("x-content-type-options", "nosniff"))
        // Not "no-referrer": with that, browsers send "Origin: null" with a page's own forms.
        .add(("referrer-policy", "same-origin"))
        .add(("cross-origin-resource-policy", "same-origin"))
        .add(("cross-origin-opener-policy", "same-origin"))
}
