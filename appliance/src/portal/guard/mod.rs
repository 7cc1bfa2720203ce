//! What every request must pass, in this order:
//!
//! - [`headers`]: what every answer says to the browser, also those of the other guards
//! - [`host`]: the name under which the portal was called must be one of its own
//! - [`origin`]: what changes something must come from one of its own pages
//!
//! Who may see what (sign-in, tokens) belongs after these: it may then trust host and origin.

pub(super) mod headers;
pub(super) mod host;
pub(super) mod origin;
