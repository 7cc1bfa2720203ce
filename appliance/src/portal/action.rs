//! What a person asks for, and how it came out.

use std::time::Duration;

use actix_web::{HttpResponse, http::header, web};
use tokio::time::timeout;

use super::Context;
use crate::manager::{Command, view::SessionView};

/// How long a command may wait for the manager.
const BUSY: Duration = Duration::from_secs(2);

/// How an action came out; part of the address that a form leads back to, so that it survives a
/// page without script and a reload sends nothing again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The manager has it and can act.
    Attaching,
    /// The manager has it, and will act when the VM is back.
    Later,
    /// There is no VM.
    NotPaired,
    /// The manager did not take it.
    Busy,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Attaching, Self::Later, Self::NotPaired, Self::Busy];

    /// The word in the address.
    fn key(self) -> &'static str {
        match self {
            Self::Attaching => "attaching",
            Self::Later => "later",
            Self::NotPaired => "not-paired",
            Self::Busy => "busy",
        }
    }

    /// The outcome that an address's query names, if any.
    pub(super) fn from_query(query: &str) -> Option<Self> {
        let key = query.strip_prefix("outcome=")?;
        Self::ALL.into_iter().find(|outcome| outcome.key() == key)
    }

    /// For people.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Attaching => {
                "Every serial device is being attached, also those that were held back."
            }
            Self::Later => {
                "Noted. The VM does not answer now; every device will be attached as soon as it does."
            }
            Self::NotPaired => "There is no VM to attach devices to: pair one first.",
            Self::Busy => "The appliance did not take the order. Try again in a moment.",
        }
    }

    /// Whether it came out as wished.
    pub(super) fn is_good(self) -> bool {
        matches!(self, Self::Attaching | Self::Later)
    }
}

/// `POST /attach-all`
pub(super) async fn attach_all(context: web::Data<Context>) -> HttpResponse {
    let not_paired = context.view.borrow().session == SessionView::NotPaired;
    let outcome = if not_paired {
        Outcome::NotPaired
    } else {
        match timeout(BUSY, context.commands.send(Command::AttachAll)).await {
            Ok(Ok(())) => match context.view.borrow().session {
                SessionView::Up { .. } => Outcome::Attaching,
                SessionView::Down { .. } | SessionView::NotPaired => Outcome::Later,
            },
            Ok(Err(_)) | Err(_) => Outcome::Busy,
        }
    };
    back(outcome)
}

/// Back to the dashboard, which shows the outcome.
fn back(outcome: Outcome) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, format!("/?outcome={}", outcome.key())))
        .finish()
}
