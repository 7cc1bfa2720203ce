//! How what a person asked for came out.

use std::time::Duration;

use actix_web::{HttpResponse, http::header, web};
use protocol::BusId;
use tokio::time::timeout;

use super::Context;
use crate::manager::{Command, View, view::SessionView};

/// How long a command may wait for the manager.
const BUSY: Duration = Duration::from_secs(2);

macro_rules! outcomes {
    ($($name:ident = $word:literal, $good:literal, $sentence:literal;)*) => {
        /// How an action came out; part of the address that a form leads back to, so that it
        /// survives a page without script and a reload sends nothing again.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Outcome {
            $(#[doc = $sentence] $name,)*
        }

        impl Outcome {
            const ALL: &[Self] = &[$(Self::$name),*];

            /// The word in the address.
            pub(super) fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// For people.
            pub(super) fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }

            /// Whether it came out as wished, or is about to.
            pub(super) fn is_good(self) -> bool {
                match self { $(Self::$name => $good,)* }
            }
        }
    };
}

outcomes! {
    AttachingAll = "attaching-all", true, "Every serial device is being attached, also those that were held back.";
    AllLater = "all-later", true, "Noted. The VM does not answer now; every device will be attached as soon as it does.";
    NotPaired = "not-paired", false, "There is no VM to attach devices to: pair one first.";
    Busy = "busy", false, "The appliance did not take the order. Try again in a moment.";
    Gone = "gone", false, "Nothing was done: that device is not plugged in any more.";
    Replaced = "replaced", false, "Nothing was done: since the page was shown, another device was plugged in there, or the same one again.";
    Attached = "attached", true, "It is attached.";
    Attaching = "attaching", true, "It is being attached.";
    Later = "later", true, "Noted. The VM does not answer now; it will be attached as soon as it does.";
    NotAttached = "not-attached", false, "It could not be attached; what is shown here says why. It is tried again by itself.";
    NotExported = "not-exported", false, "It is left alone, so it is not attached. A rule on its own page can change that.";
    Detached = "detached", true, "It is detached, and stays on the Pi until somebody attaches it again.";
    DetachedAlone = "detached-alone", true, "It is detached here. The VM does not answer now; it lets go of the device as soon as it hears of it.";
    Detaching = "detaching", true, "It is being detached.";
    TooManyHeld = "too-many-held", false, "It is not detached: too many boards are held back already. Let one go under Names, rules and holds first, or make a rule on this one’s page that leaves it alone.";
    Cycled = "cycled", true, "Its port was switched off and on, and it came back. Many hubs cut only the data lines: if the board still hangs, pull its plug.";
    Cycling = "cycling", true, "Its port is being switched off and on.";
    NotCycled = "not-cycled", false, "It was not power-cycled; what is shown here says why.";
    NeverCycled = "never-cycled", false, "It was not power-cycled: the Pi itself may need it, or other devices hang on it.";
    Named = "named", true, "It has its name.";
    NamedOldHelper = "named-old-helper", true, "It has its name here. vm-helper on the VM is too old to make a link of it: upgrade it.";
    Unnamed = "unnamed", true, "The name is forgotten.";
    NotNamed = "not-named", false, "It did not get that name: another device was given it meanwhile.";
    TooManyNames = "too-many-names", false, "It did not get that name: there are too many already. Forget one under Names, rules and holds first.";
    Ruled = "ruled", true, "The rule is in force.";
    TooManyRules = "too-many-rules", false, "The rule was not made: there are too many already. Forget one under Names, rules and holds first.";
    Unruled = "unruled", true, "The rule is forgotten.";
    Released = "released", true, "It is held back no longer: it is attached whenever it is plugged in.";
}

impl Outcome {
    /// Back to the dashboard, which says it at its top.
    pub(super) fn on_dashboard(self) -> HttpResponse {
        Said {
            outcome: self,
            busid: None,
        }
        .on_dashboard()
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|one| one.word() == word)
    }
}

/// An outcome, and the device whose button was pressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// How it came out.
    pub(super) outcome: Outcome,
    /// Where it is to be said; at the top where there is no such device.
    pub(super) busid: Option<BusId>,
}

impl Said {
    /// What an address's query says, if anything.
    pub(super) fn from_query(query: &str) -> Option<Self> {
        let value = |key: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs.find_map(|(name, value)| (name == key).then_some(value))
        };
        Some(Self {
            outcome: Outcome::from_word(&value("outcome")?)?,
            busid: value("device").and_then(|busid| busid.parse().ok()),
        })
    }

    /// Back to the dashboard, which says it where the button is.
    pub(super) fn on_dashboard(&self) -> HttpResponse {
        let word = self.outcome.word();
        see(&match &self.busid {
            Some(busid) => format!("/?outcome={word}&device={busid}#device-{busid}"),
            None => format!("/?outcome={word}"),
        })
    }

    /// Back to the device's own page.
    pub(super) fn on_its_page(&self) -> HttpResponse {
        match &self.busid {
            Some(busid) => see(&format!("/devices/{busid}?outcome={}", self.outcome.word())),
            None => self.on_dashboard(),
        }
    }
}

fn see(address: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, address))
        .finish()
}

/// Give the manager an order; whether it took it.
pub(super) async fn order(context: &Context, command: Command) -> bool {
    matches!(
        timeout(BUSY, context.commands.send(command)).await,
        Ok(Ok(()))
    )
}

/// Wait until something is the case, for `patience` at most; what was the case then.
pub(super) async fn wait_until<T>(
    context: &Context,
    patience: Duration,
    look: impl Fn(&View) -> Option<T>,
) -> Option<T> {
    let mut views = context.view.clone();
    let waiting = async {
        loop {
            if let Some(found) = look(&views.borrow_and_update()) {
                return Some(found);
            }
            // The manager has ended, and nothing changes any more.
            views.changed().await.ok()?;
        }
    };
    timeout(patience, waiting).await.ok().flatten()
}

/// `POST /attach-all`
pub(super) async fn attach_all(context: web::Data<Context>) -> HttpResponse {
    attached_all(&context).await.on_dashboard()
}

/// Have everything attached, also what was held back.
pub(super) async fn attached_all(context: &Context) -> Outcome {
    let not_paired = context.view.borrow().session == SessionView::NotPaired;
    if not_paired {
        return Outcome::NotPaired;
    }
    if !order(context, Command::AttachAll).await {
        return Outcome::Busy;
    }
    match context.view.borrow().session {
        SessionView::Up { .. } => Outcome::AttachingAll,
        SessionView::Down { .. } | SessionView::NotPaired => Outcome::AllLater,
    }
}
