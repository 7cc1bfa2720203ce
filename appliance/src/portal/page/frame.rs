//! What surrounds every page.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::super::{
    assets::{ICON, address},
    guard::visitor::{FORM_TOKEN, Visitor},
};

/// The pages that can be chosen on every page.
const PLACES: &[(&str, &str)] = &[
    ("/", "Devices"),
    ("/vm", "VM"),
    ("/history", "History"),
    ("/downloads", "Downloads"),
    ("/log", "Log"),
    ("/account", "Account"),
];

/// A whole page for somebody who is signed in. Its buttons can belong to the form `act`, with a
/// `formaction` of their own; that way the live part needs no form token.
pub(in super::super) fn frame(title: &str, visitor: &Visitor, content: &Markup) -> Markup {
    whole(
        title,
        &html! {
            nav aria-label="Pages" {
                ul {
                    @for &(path, name) in PLACES {
                        li { a href=(path) aria-current=[(visitor.is_at(path)).then_some("page")] { (name) } }
                    }
                }
                button.plain type="submit" form="act" formaction="/sign-out" { "Sign out" }
            }
        },
        &html! {
            (content)
            form #act method="post" { (form_token(visitor)) }
        },
    )
}

/// A whole page for a stranger.
pub(in super::super) fn bare(title: &str, content: &Markup) -> Markup {
    whole(
        title,
        &html! { p { "USB serial devices for your VM" } },
        content,
    )
}

/// The hidden field that each form of a signed-in page must have.
pub(in super::super) fn form_token(visitor: &Visitor) -> Markup {
    html! { input type="hidden" name=(FORM_TOKEN) value=(visitor.form_token); }
}

fn whole(title: &str, top: &Markup, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · usbip-pi" }
                link rel="icon" href=(PreEscaped(ICON.as_str()));
                link rel="stylesheet" href=(address("style.css"));
                script defer src=(address("portal.js")) {}
            }
            body {
                header {
                    h1 { a href="/" { "usbip-pi" } }
                    (top)
                }
                main { (content) }
            }
        }
    }
}
