//! A vm-helper of another version than the Pi's: what each knows, the other may not.

use testbed::redir::Kind;
use testbed::trial::{Bed, Error, Outcome, Undo, fresh_vm, wait_until};

use crate::browser::Window;
use crate::entry::sign_in_at;
use crate::pairing::PI;

const HANDLER: &str = "/usr/bin/usb-event-handler";
/// Requests that the older one does not know, if it was sent any.
const UNKNOWN: &str = "/run/unknown-requests";
/// As an earlier version: it greets without what came later, and knows nothing of names.
const OLDER: [&str; 2] = [
    "/^aliases/{w /run/unknown-requests\nd}",
    r#"s/"version":"[^"]*"/"version":"0.0.1"/; s/,"capabilities":\[[^]]*\]//; s/,"timings":{[^}]*}//"#,
];
/// As a later version: it says more than this Pi understands.
const NEWER: [&str; 2] = [
    "",
    r#"s/"version":"[^"]*"/"version":"9.0.0","mood":{"good":[1]}/; s/"capabilities":\[/&"sing",/; s/"busid":/"later":[1],&/g"#,
];

/// Puts a filter before and behind the handler, and has the Pi greet it anew.
fn disguise(bed: &Bed, [requests, answers]: [&str; 2]) -> Result<(), Error> {
    let script = format!(
        "#!/bin/bash\n\
         helper() {{ exec -a usb-event-handler /usr/bin/vm-helper \"$@\"; }}\n\
         [ \"$(id -u) $1\" = '0 session' ] || helper \"$@\"\n\
         sed -u '{requests}' | (helper \"$@\") | sed -u '{answers}'\n"
    );
    // Not through the link to the program itself.
    bed.vm().check(&format!("rm -f {HANDLER} {UNKNOWN}"))?;
    bed.vm().put(HANDLER, 0o755, script.as_bytes())?;
    bed.vm()
        .check("pkill -f '[u]sb-event-handler session' || true")?;
    Ok(())
}

/// What happened after the event with this number, in words.
fn kinds(bed: &Bed, after: i64) -> Result<Vec<String>, Error> {
    let (events, _) = bed.events(after)?;
    let kinds = events.iter().filter_map(|event| event["kind"].as_str());
    Ok(kinds.map(str::to_owned).collect())
}

pub fn differ(bed: &Bed) -> Outcome {
    let _undo = Undo {
        machine: bed.vm(),
        command: format!("ln -sfn vm-helper {HANDLER}; pkill -f '[u]sb-event-handler session'"),
    };
    let browser = sign_in_at(bed, Window::DESK)?;
    disguise(bed, NEWER)?;
    browser.sees(&["Connected", "9.0.0"])?;
    let plug = bed.plug(Kind::Cp2102)?;
    browser.sees(&["Attached", "/dev/ttyUSB0"])?;
    browser.press_in(&format!("device-{}", plug.busid), "More")?;
    browser.fill("name", "meter")?;
    browser.press("Save")?;
    browser.sees(&["/dev/usb-pi/meter"])?;
    browser.go("/")?;
    browser.misses(&["in one line"])?;

    disguise(bed, OLDER)?;
    browser.sees(&["Connected", "vm-helper on the VM is version 0.0.1"])?;
    let (_, before) = bed.events(0)?;
    bed.unplug(&plug)?;
    browser.sees(&["No serial device is plugged in"])?;
    let plug = bed.plug(Kind::Cp2102)?;
    bed.attached(&plug)?;
    browser.sees(&["Attached", "/dev/ttyUSB0"])?;
    browser.picture("older-helper")?;
    browser.press_in(&format!("device-{}", plug.busid), "More")?;
    browser.fill("name", "scale")?;
    browser.press("Save")?;
    browser.sees(&["vm-helper on the VM is too old to make a link of it"])?;
    bed.attached(&plug)?;
    let happened = kinds(bed, before)?;
    for bad in ["failed", "session_lost", "session_failed", "detached"] {
        assert!(!happened.iter().any(|kind| kind == bad), "{happened:?}");
    }
    bed.vm().check(&format!("! test -s {UNKNOWN}"))?;

    // The line that is offered upgrades it; the pairing and the device stay.
    bed.vm().check(
        "sed -i '/^Package: usbip-vm-helper$/,/^$/s/^Version: .*/Version: 0.0.1/' /var/lib/dpkg/status",
    )?;
    let _administrator = fresh_vm::administrator(bed)?;
    browser.go("/")?;
    browser.press("upgrade the VM’s in one line")?;
    browser.fill("pi", PI)?;
    browser.press("Make the line")?;
    let line = browser.text_of("#join-state pre")?;
    let output = fresh_vm::run(bed, &line)?;
    assert_eq!(output.code, Some(0), "{output:?}");
    browser.sees(&["Paired with dev@"])?;
    browser.go("/")?;
    browser.sees(&["Attached", "/dev/usb-pi/scale"])?;
    browser.misses(&["in one line"])?;
    wait_until("the device", || {
        bed.attached(&plug).map_err(|error| error.to_string())
    })?;
    assert_eq!(browser.complaints()?, Vec::<String>::new());
    Ok(())
}
