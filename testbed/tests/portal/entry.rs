//! The first visit, and every one after it.

use testbed::trial::{Bed, Outcome, PASSWORD};

use crate::browser::{Browser, Error, Window};
use crate::{address, fresh};

/// A new window with the dashboard.
pub fn sign_in_at(bed: &Bed, window: Window) -> Result<Browser, Error> {
    let browser = Browser::open(&address(bed), window)?;
    browser.go("/")?;
    sign_in(&browser, "Serial devices")?;
    Ok(browser)
}

/// Signs in where the page asks for it, and waits for what was asked for.
fn sign_in(browser: &Browser, text: &str) -> Outcome {
    browser.fill("password", PASSWORD)?;
    browser.press("Sign in")?;
    browser.sees(&[text])?;
    Ok(())
}

pub fn claim(bed: &Bed) -> Outcome {
    fresh::pi(bed)?;
    let browser = Browser::open(&address(bed), Window::DESK)?;
    browser.go("/history")?;
    browser.sees(&["choose a password"])?;
    browser.picture("claim")?;
    browser.fill("password", "short")?;
    browser.fill("again", "short")?;
    browser.press("Claim this Pi")?;
    browser.sees(&["at least 10 characters"])?;
    browser.fill("password", PASSWORD)?;
    browser.fill("again", PASSWORD)?;
    browser.press("Claim this Pi")?;
    browser.sees(&["Serial devices", "Not paired"])?;
    browser.picture("first-visit")?;

    // Nobody else can, and nobody comes in without the password.
    let other = Browser::open(&address(bed), Window::PHONE)?;
    other.go("/claim")?;
    other.sees(&["Forgotten the password?"])?;
    other.fill("password", "some other password")?;
    other.press("Sign in")?;
    other.sees(&["This is not the password"])?;
    other.picture("phone-sign-in")?;
    other.go("/vm")?;
    sign_in(&other, "Pairing by name or address")?;

    browser.press("Sign out")?;
    browser.sees(&["Sign in"])?;
    browser.go("/")?;
    sign_in(&browser, "Serial devices")?;
    // The sessions outlive the process.
    bed.pi().check("killall appliance")?;
    bed.pi()
        .wait_until("wget -qO- http://127.0.0.1:8080/healthz | grep ok")?;
    browser.go("/account")?;
    browser.sees(&["Sign out"])?;
    assert_eq!(browser.complaints()?, Vec::<String>::new());
    Ok(())
}
