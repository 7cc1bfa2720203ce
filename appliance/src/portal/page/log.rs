//! The log: what the kernel and the appliance said lately.

use std::io;

use actix_web::{HttpResponse, http::header};
use maud::{Markup, html};

use super::{
    super::{guard::visitor::Visitor, text::shown},
    frame,
};
use crate::system::kernel_log::Line;

/// Lines on the page; the ring holds some thousands.
const MOST_LINES: usize = 300;

/// The page.
pub(in super::super) fn log(visitor: &Visitor, lines: &io::Result<Vec<Line>>) -> HttpResponse {
    let content = html! {
        h2 { "Log" }
        p {
            "The newest first, in seconds since the Pi started. It is kept in memory and begins \
             anew with each start of the Pi."
        }
        p #connection role="status" hidden {}
        p #news .unseen aria-live="polite" {}
        (live(lines))
    };
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(frame::frame("Log", visitor, &content).into_string())
}

/// The part that the script keeps up to date.
pub(in super::super) fn live(lines: &io::Result<Vec<Line>>) -> Markup {
    html! {
        div #live data-events="/log/events" {
            @match lines {
                Ok(lines) => ul #lines .log { @for line in lines.iter().rev().take(MOST_LINES) { (item(line)) } },
                Err(error) => p #lines .notice { "The kernel's log cannot be read: " (error) },
            }
        }
    }
}

fn item(line: &Line) -> Markup {
    html! {
        li #{ "line-" (line.sequence) } .{ "level-" (line.level) } {
            time { (format!("{:.3}", line.at.as_secs_f64())) }
            " "
            span { @if line.kernel { "kernel" } @else { "appliance" } }
            " "
            code { (shown(&line.text)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_newest_line_comes_first_and_nothing_in_it_is_markup() {
        let line = |sequence, text: &str| Line {
            sequence,
            at: Duration::from_millis(1500 * sequence),
            level: 6,
            kernel: sequence == 1,
            text: text.into(),
        };
        let lines = vec![line(1, "usb 1-1: <script>"), line(2, "bound")];
        let page = live(&Ok(lines)).into_string();
        let (bound, script) = (page.find("bound"), page.find("&lt;script&gt;"));
        assert!(bound.is_some() && bound < script, "{page}");
        assert!(page.contains("3.000") && page.contains("kernel"), "{page}");
    }
}
