//! Every page, on a desk and on a phone, by day and by night.

use testbed::redir::Kind;
use testbed::trial::{Bed, Outcome};

use crate::browser::Window;
use crate::entry::sign_in_at;

const PAGES: [(&str, &str); 7] = [
    ("devices", "/"),
    ("vm", "/vm"),
    ("join", "/vm/join"),
    ("history", "/history"),
    ("downloads", "/downloads"),
    ("account", "/account"),
    ("log", "/log"),
];

pub fn all(bed: &Bed) -> Outcome {
    let _plugs = [
        bed.plug(Kind::Cp2102)?,
        bed.plug(Kind::Ft2232)?,
        bed.plug(Kind::Keyboard)?,
    ];
    let desk = sign_in_at(bed, Window::DESK)?;
    let phone = sign_in_at(bed, Window::PHONE)?;
    let night = sign_in_at(
        bed,
        Window {
            dark: true,
            ..Window::PHONE
        },
    )?;
    desk.sees(&["Left alone", "/dev/ttyUSB2"])?;
    for (name, path) in PAGES {
        for (browser, kind) in [(&desk, "desk"), (&phone, "phone"), (&night, "night")] {
            browser.go(path)?;
            browser.sees(&["Sign out"])?;
            browser.picture(&format!("{kind}-{name}"))?;
            assert_eq!(browser.overflow()?, 0, "{path} is wider than the {kind}");
            assert_eq!(browser.complaints()?, Vec::<String>::new(), "{path}");
        }
    }
    Ok(())
}

pub fn history(bed: &Bed) -> Outcome {
    let plug = bed.plug(Kind::Ch9102)?;
    bed.attached(&plug)?;
    bed.unplug(&plug)?;
    let browser = sign_in_at(bed, Window::DESK)?;
    browser.go("/history")?;
    browser.sees(&["Plugged in", "Attached", "Unplugged"])?;
    browser.choose("kind", "attached")?;
    browser.press("Show")?;
    browser.sees(&["/dev/ttyACM0"])?;
    assert!(browser.path()?.contains("kind=attached"));
    let listed = browser.text_of("ol.events")?;
    assert!(!listed.contains("Unplugged"), "{listed}");
    browser.picture("history-filtered")?;
    assert_eq!(browser.complaints()?, Vec::<String>::new());
    Ok(())
}
