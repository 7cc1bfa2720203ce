//! What can be done with a device, with the script and without it.

use testbed::redir::{Kind, MAX_STRING_UNITS, Strings};
use testbed::trial::{Bed, Outcome, wait_until};
use testbed::usb::What;

use crate::browser::{Browser, Error, Window};
use crate::entry::sign_in_at;

/// Clicks on a button that asks first.
fn confirm(browser: &Browser, act: &str, busid: &str) -> Result<(), Error> {
    browser.click(&format!("[id='summary-{act}-{busid}']"))?;
    browser.click(&format!("[id='{act}-{busid}']"))
}

pub fn actions(bed: &Bed) -> Outcome {
    let browser = sign_in_at(bed, Window::DESK)?;
    let plug = bed.plug(Kind::Esp32S3)?;
    let node = bed.attached(&plug)?.ttys[0].node.clone();
    let busid = plug.busid.as_str();
    let item = format!("device-{busid}");
    browser.sees(&["Attached", &node])?;

    // A name that cannot be is explained and kept; a good one is a link on the VM.
    browser.press_in(&item, "More")?;
    browser.fill("name", "desk board")?;
    browser.press("Save")?;
    browser.sees(&["cannot be in a name"])?;
    browser.picture("name-refused")?;
    browser.fill("name", "blinky")?;
    browser.press("Save")?;
    browser.sees(&["/dev/usb-pi/blinky"])?;
    let target = bed.vm().wait_until("readlink -f /dev/usb-pi/blinky")?;
    assert_eq!(target.trim(), node);
    browser.picture("device")?;

    // Held back until it is attached again, in a page that nobody reloads.
    browser.go("/")?;
    confirm(&browser, "detach", busid)?;
    browser.sees(&["Held back"])?;
    bed.vm()
        .wait_until(&format!("! ls {node} /dev/usb-pi/blinky 2>/dev/null"))?;
    browser.picture("held-back")?;
    browser.click(&format!("[id='attach-{busid}']"))?;
    browser.sees(&["Attached", "/dev/usb-pi/blinky"])?;

    // The controller of this Pi cannot switch its ports: it stays attached, and that is said.
    confirm(&browser, "power-cycle", busid)?;
    browser.sees(&[
        "was not switched off and on",
        "this port cannot be switched",
    ])?;
    browser.sees(&["Attached", &node])?;
    browser.picture("power-cycle-refused")?;

    // A rule takes it away, and gives it back once it is forgotten.
    browser.press_in(&item, "More")?;
    browser.click("input[name=ruling][value=ignore]")?;
    browser.click("input[name=about][value=product]")?;
    browser.press("Make the rule")?;
    browser.go("/")?;
    browser.sees(&["Left alone"])?;
    browser.picture("left-alone")?;
    browser.go(&format!("/devices/{busid}"))?;
    browser.press("Forget the rule in force")?;
    browser.go("/")?;
    browser.sees(&["Attached", "/dev/usb-pi/blinky"])?;
    assert_eq!(browser.complaints()?, Vec::<String>::new());
    Ok(())
}

/// Notes each place where the card with the id `device-BUSID` is drawn.
fn watch(busid: &str) -> String {
    format!(
        "window.places = new Set();
        (function look() {{
            const card = document.getElementById('device-{busid}');
            places.add(card.getBoundingClientRect().top + scrollY);
            requestAnimationFrame(look);
        }})()"
    )
}

pub fn steady(bed: &Bed) -> Outcome {
    let changing = bed.plug(Kind::Cp2102)?;
    let below = bed.plug(Kind::Ft231x)?;
    bed.attached(&changing)?;
    bed.attached(&below)?;
    let watching = sign_in_at(bed, Window::PHONE)?;
    watching.sees(&["/dev/ttyUSB0", "/dev/ttyUSB1"])?;
    watching.ask(&watch(below.busid.as_str()))?;
    let clicking = sign_in_at(bed, Window::DESK)?;
    confirm(&clicking, "detach", changing.busid.as_str())?;
    watching.sees(&["Held back"])?;
    clicking.press("Attach all")?;
    watching.misses(&["Held back"])?;
    watching.sees(&["/dev/ttyUSB0", "/dev/ttyUSB1"])?;
    let places = watching.ask("return [...places]")?;
    assert_eq!(places.as_array().map(Vec::len), Some(1), "{places}");
    assert_eq!(watching.complaints()?, Vec::<String>::new());
    Ok(())
}

pub fn hostile(bed: &Bed) -> Outcome {
    let plug = bed.plug(Kind::Ft231x)?;
    let browser = sign_in_at(bed, Window::PHONE)?;
    browser.sees(&["Attached", "FT231X"])?;
    let units = |text: &str| text.encode_utf16().collect::<Vec<_>>();
    let product =
        "<script>document.title='x'</script>\u{202e}\r\n<img src=x onerror=document.title='x'>";
    let strings = Strings {
        // Halves of characters.
        manufacturer: Some([units("Half"), vec![0xdfff, 0xd800], units("way")].concat()),
        product: Some(units(product)),
        serial: Some(vec![u16::from(b'W'); MAX_STRING_UNITS]),
    };
    bed.pi().swap(plug.number, strings)?;
    let seen = "<script>document.title='x'</script>\u{fffd} <img src=x onerror=document.title='x'>";
    let serial = "W".repeat(MAX_STRING_UNITS);
    browser.sees(&["Attached", seen, "Half", &serial])?;
    bed.attached(&plug)?;
    browser.picture("phone-hostile")?;
    let more = format!("/devices/{}", plug.busid);
    for path in ["/", &more, "/history", "/downloads", "/log"] {
        browser.go(path)?;
        browser.sees(&["Sign out"])?;
        assert_ne!(browser.ask("return document.title")?, "x", "{path}");
        let made = "return document.querySelectorAll('main script, main img').length";
        assert_eq!(browser.ask(made)?, 0, "{path}");
        assert_eq!(browser.overflow()?, 0, "{path} is wider than the phone");
        assert_eq!(browser.complaints()?, Vec::<String>::new(), "{path}");
    }
    Ok(())
}

pub fn power_cycle(bed: &Bed) -> Outcome {
    bed.plug_at(What::QemuHub, Some("3"), None)?;
    let plug = bed.plug_at(Kind::Cp2102, Some("3.2"), None)?;
    let attachment = bed.attached(&plug)?;
    let browser = sign_in_at(bed, Window::PHONE)?;
    browser.sees(&["Attached", "/dev/ttyUSB0"])?;
    confirm(&browser, "power-cycle", plug.busid.as_str())?;
    // For a moment, or what came of it.
    browser.sees(&["witched off and on"])?;
    browser.picture("phone-power-cycle")?;
    wait_until("the device in its next generation", || {
        let again = bed.attached(&plug).map_err(|error| error.to_string())?;
        let is_new = again.devid != attachment.devid;
        is_new.then_some(()).ok_or(format!("{again:?}"))
    })?;
    browser.sees(&["Attached", "/dev/ttyUSB0"])?;
    assert_eq!(browser.complaints()?, Vec::<String>::new());
    Ok(())
}

pub fn without_script(bed: &Bed) -> Outcome {
    let plug = bed.plug(Kind::Cp2102)?;
    bed.attached(&plug)?;
    let browser = sign_in_at(
        bed,
        Window {
            script: false,
            ..Window::DESK
        },
    )?;
    browser.sees(&["Attached", "/dev/ttyUSB0"])?;
    confirm(&browser, "detach", plug.busid.as_str())?;
    browser.reloads_until(&["Held back"])?;
    browser.picture("without-script")?;
    browser.press("Attach all")?;
    browser.reloads_until(&["Attached", "/dev/ttyUSB0"])?;
    for path in ["/vm", "/history", "/downloads", "/account"] {
        browser.go(path)?;
        browser.sees(&["Sign out"])?;
    }
    Ok(())
}
