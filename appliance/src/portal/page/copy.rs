//! Text to copy.

use maud::{Markup, html};

/// A text in a box, with a button that copies it. The script shows the button; without it the text
/// can be marked by hand.
pub(super) fn copyable(id: &str, text: &str) -> Markup {
    html! {
        div.copyable {
            pre #(id) tabindex="0" { code { (text) } }
            button type="button" hidden data-copy=(id) { "Copy" }
        }
    }
}
