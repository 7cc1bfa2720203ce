//! What surrounds every page.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::super::assets::{ICON, address};

/// A whole page.
pub(super) fn frame(title: &str, content: &Markup) -> Markup {
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
                    p { "USB serial devices for your VM" }
                }
                main { (content) }
            }
        }
    }
}
