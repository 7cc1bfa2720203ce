//! What a test found, and the way on from there.

use maud::{Markup, html};

use super::{
    super::{
        super::{guard::visitor::Visitor, text::shown},
        command,
    },
    Target, form,
};
use crate::vm::{
    PublicKey,
    diagnosis::{Finding, Report, State, Trust},
};

/// The section about the latest test of this VM.
pub(super) fn section(visitor: &Visitor, target: &Target, report: &Report, paired: bool) -> Markup {
    html! {
        section #report aria-labelledby="report-title" {
            h2 #report-title { "Test of " (shown(&target.user)) "@" (shown(&target.host)) }
            ol #checks .devices {
                @for (n, finding) in report.findings.iter().enumerate() {
                    (item(n, finding))
                }
            }
            div #report-end {
                @if report.done {
                    (way_on(visitor, target, report, paired))
                } @else {
                    p.quiet { "The test goes on." noscript { " " a href=(target.address()) { "Show what it has found since" } } }
                }
            }
        }
    }
}

fn item(n: usize, finding: &Finding) -> Markup {
    let (colour, word) = match finding.state {
        State::Running => ("grey", "Looking"),
        State::Ok => ("green", "In order"),
        State::Warning => ("yellow", "Look here"),
        State::Failed => ("red", "Failed"),
    };
    let title = shown(&finding.title);
    html! {
        li #{ "check-" (n) } .card data-news={ (title) ": " (word) } {
            div.top { h3 { (title) } span.state.(colour) { (word) } }
            @if !finding.sentence.is_empty() { p.why { (shown(&finding.sentence)) } }
            @if let Some(remedy) = &finding.remedy { p.remedy { (shown(remedy)) } }
            @if let Some(line) = &finding.command { (command(line)) }
        }
    }
}

fn way_on(visitor: &Visitor, target: &Target, report: &Report, paired: bool) -> Markup {
    let confirmed: Vec<String> = report.shown.iter().map(PublicKey::fingerprint).collect();
    let known = report.trust == Trust::Pinned;
    html! {
        @if report.key_refused {
            div.card {
                h3 { "Or let the Pi bring its key" }
                p.why {
                    "With the password of " b { (shown(&target.user)) } " on the VM, used once and kept nowhere. It travels \
                     to the Pi as everything on this page does, without encryption in your network, and from there by SSH."
                    @if !known {
                        " By this you say that the host key above is the VM’s own."
                    }
                }
                form .fields method="post" action="/vm/key" {
                    (form::hidden(visitor, target, &confirmed))
                    label {
                        "Password"
                        input type="password" name="password" required maxlength="1000" autocomplete="off";
                    }
                    button type="submit" { "Bring the key" }
                }
            }
        }
        @if !paired && report.trust != Trust::Alarm && !report.shown.is_empty() {
            div.card {
                h3 { @if report.is_good() { "All there" } @else { "Set up anyway" } }
                p.why {
                    @if !known { "If the host key above is the VM’s own, " } @else { "" }
                    @if report.is_good() {
                        "the Pi can be paired with it: it connects and attaches every serial device."
                    } @else {
                        "the Pi can be paired with it now; it tries until what failed above is mended."
                    }
                }
                form method="post" action="/vm/pair" {
                    (form::hidden(visitor, target, &confirmed))
                    div.buttons { button type="submit" { @if known { "Set up pairing" } @else { "The host key is right: set up pairing" } } }
                }
            }
        } @else if report.is_good() {
            p.outcome.good { "Everything is in order." }
        }
        @if report.trust == Trust::Alarm {
            div.card {
                h3 { "Only if the VM was reinstalled" }
                form method="post" action="/vm/pair" {
                    (form::hidden(visitor, target, &confirmed))
                    div.buttons { button.danger type="submit" { "The new host key is right: pair again" } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::Pairing;

    #[test]
    fn what_a_vm_says_is_shown_harmlessly_and_its_commands_as_they_are() {
        let target = Target {
            host: "vm".into(),
            user: "dev".into(),
        };
        let report = Report {
            target: Pairing {
                host: "vm".into(),
                user: "dev".into(),
            },
            findings: vec![Finding {
                id: "\"><b>".into(),
                title: "<script>alert(1)</script>\u{202e}".into(),
                state: State::Failed,
                sentence: "<img src=x>\n\u{2066}".into(),
                remedy: Some("<i>".into()),
                command: Some("echo '<b>' && x".into()),
            }],
            shown: Vec::new(),
            trust: Trust::New,
            key_refused: true,
            done: true,
        };
        let visitor = Visitor {
            key: [0; 32],
            form_token: "t".into(),
            path: "/vm".into(),
        };
        let page = section(&visitor, &target, &report, false).into_string();
        for text in ["<script", "<img", "<i>", "<b>&", "\u{202e}", "\u{2066}"] {
            assert!(!page.contains(text), "{text}: {page}");
        }
        assert!(page.contains("echo '&lt;b&gt;' &amp;&amp; x"), "{page}");
        assert!(page.contains("type=\"password\""), "{page}");
    }
}
