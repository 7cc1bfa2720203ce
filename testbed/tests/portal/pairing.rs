//! Pairing, and how a device comes and goes in an open page.

use testbed::redir::Kind;
use testbed::trial::{Bed, Outcome, fresh_vm};

use crate::browser::{Browser, Error, Window};
use crate::entry::sign_in_at;
use crate::fresh;

/// The Pi as the VM reaches it.
pub const PI: &str = "10.9.0.1:8080";
/// The VM as the Pi reaches it.
const VM: &str = "10.9.0.2";

/// Tests the connection, and waits for the end of the test.
fn test(browser: &Browser) -> Outcome {
    browser.go("/vm")?;
    browser.fill("host", VM)?;
    browser.press("Test connection")?;
    browser.sees(&[&format!("Test of dev@{VM}")])?;
    browser.misses(&["The test goes on"])?;
    Ok(())
}

/// Does on the VM what the page says, as the user `dev` or as root.
fn obey(bed: &Bed, command: &str, user: &str) -> Result<(), Error> {
    bed.vm().put("/tmp/shown", 0o644, command.as_bytes())?;
    bed.vm().check(&format!("su - {user} -c 'sh /tmp/shown'"))?;
    Ok(())
}

pub fn by_form(bed: &Bed) -> Outcome {
    fresh::pi(bed)?;
    fresh::vm(bed)?;
    // Claims the Pi.
    bed.page("/")?;
    let browser = sign_in_at(bed, Window::DESK)?;
    test(&browser)?;
    browser.sees(&["SHA256:", "does not let the Pi log in as dev"])?;
    browser.picture("diagnosis")?;
    let install = browser.text_of("#key pre")?;
    obey(bed, &install, "dev")?;

    // Now it comes further, to what only the VM itself knows.
    test(&browser)?;
    browser.sees(&["Pi named on the VM"])?;
    let mend = "//pre[contains(., 'DEFAULT_PI_HOST=')]";
    obey(bed, &browser.text_of(mend)?, "root")?;
    test(&browser)?;
    browser.sees(&["All there"])?;
    browser.picture("diagnosis-good")?;
    browser.press("The host key is right: set up pairing")?;
    browser.sees(&[&format!("dev@{VM}"), "Connected"])?;

    // From here on nobody touches the page.
    browser.go("/")?;
    browser.sees(&["No serial device is plugged in"])?;
    let plug = bed.plug(Kind::Cp2102)?;
    browser.sees(&[
        "Attached",
        "/dev/ttyUSB0",
        "cp210x",
        "10c4:ea60",
        "Silicon Labs",
    ])?;
    browser.sees(&["/dev/serial/by-id/usb-Silicon_Labs_CP2102"])?;
    browser.picture("attached")?;
    bed.unplug(&plug)?;
    browser.sees(&["No serial device is plugged in"])?;
    assert_eq!(browser.complaints()?, Vec::<String>::new());
    Ok(())
}

pub fn by_line(bed: &Bed) -> Outcome {
    fresh_vm::make(bed)?;
    let _administrator = fresh_vm::administrator(bed)?;
    let plug = bed.plug(Kind::Cp2102)?;
    let browser = sign_in_at(bed, Window::DESK)?;
    browser.sees(&["Not paired", "Waiting for the VM"])?;
    browser.go("/vm")?;
    browser.press("Pair in one line")?;
    browser.fill("pi", PI)?;
    browser.press("Make the line")?;
    browser.sees(&["Run this on the VM", "Waiting for the VM"])?;
    browser.picture("line")?;
    // Nobody touches the page from here on.
    browser.ask("window.untouched = true")?;
    let line = browser.text_of("#join-state pre")?;
    let output = fresh_vm::run(bed, &line)?;
    assert_eq!(output.code, Some(0), "{output:?}");
    browser.sees(&[&format!("Paired with dev@{VM}"), "SHA256:", "Connected"])?;
    assert_eq!(browser.ask("return window.untouched")?, true);
    browser.picture("line-paired")?;
    browser.press("To the devices")?;
    browser.sees(&["Attached", "/dev/ttyUSB0"])?;
    bed.attached(&plug)?;
    assert_eq!(browser.complaints()?, Vec::<String>::new());
    Ok(())
}

pub fn by_password(bed: &Bed) -> Outcome {
    fresh::pi(bed)?;
    fresh::vm(bed)?;
    bed.page("/")?;
    bed.vm().check(
        "echo 'dev:correct horse' | chpasswd && echo DEFAULT_PI_HOST=10.9.0.1 >>/etc/usbip/pi.conf",
    )?;
    let browser = sign_in_at(bed, Window::PHONE)?;
    test(&browser)?;
    browser.fill("password", "wrong")?;
    browser.press("Bring the key")?;
    browser.sees(&["password"])?;
    test(&browser)?;
    browser.fill("password", "correct horse")?;
    browser.press("Bring the key")?;
    test(&browser)?;
    browser.sees(&["All there"])?;
    browser.picture("phone-diagnosis")?;
    // The button that asks for the confirmation of the host key, unless that was given with the password.
    browser.click("//button[contains(., 'et up pairing')][not(@formaction)]")?;
    browser.sees(&["Connected"])?;
    bed.session()?;

    browser.press("Disconnect…")?;
    browser.sees(&[&format!("Disconnect from dev@{VM}?")])?;
    browser.press("Disconnect")?;
    browser.sees(&["still let in"])?;
    browser.picture("phone-disconnected")?;
    assert_eq!(browser.complaints()?, Vec::<String>::new());
    Ok(())
}
