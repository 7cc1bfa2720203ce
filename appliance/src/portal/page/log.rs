//! The log: what the kernel and the appliance said lately.

use std::io;

use actix_web::{HttpResponse, http::header, web};
use maud::{Markup, html};

use super::{
    super::{Context, guard::visitor::Visitor, text::shown},
    frame,
};
use crate::system::kernel_log::Line;

/// Lines on the page; the ring holds some thousands.
const MOST_LINES: usize = 500;

/// `GET /log`
pub(in super::super) async fn log(visitor: Visitor, context: web::Data<Context>) -> HttpResponse {
    let log = context.log.clone();
    let lines = match web::block(move || log.lines()).await {
        Ok(lines) => lines,
        Err(error) => Err(io::Error::other(error)),
    };
    let page = frame::frame("Log", &visitor, &content(&lines));
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(page.into_string())
}

fn content(lines: &io::Result<Vec<Line>>) -> Markup {
    html! {
        section aria-labelledby="log-title" {
            div.top {
                h2 #log-title { "Log" }
                a href="/log" { "Reload" }
            }
            p {
                "The newest first, in seconds since the Pi started. It is kept in memory and begins \
                 anew with each start of the Pi."
            }
            @match lines {
                Ok(lines) => {
                    ol.log reversed {
                        @for line in lines.iter().rev().take(MOST_LINES) {
                            li.{ "level-" (line.level) } {
                                time { (format!("{:.3}", line.at.as_secs_f64())) }
                                " "
                                span { @if line.kernel { "kernel" } @else { "appliance" } }
                                " "
                                code { (shown(&line.text)) }
                            }
                        }
                    }
                }
                Err(error) => p.notice { "The kernel's log cannot be read: " (error) }
            }
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
        let page = content(&Ok(lines)).into_string();
        let (bound, script) = (page.find("bound"), page.find("&lt;script&gt;"));
        assert!(bound.is_some() && bound < script, "{page}");
        assert!(page.contains("3.000") && page.contains("kernel"), "{page}");
    }
}
