//! The portal in a browser: the appliance on the Pi, real kernels, a headless Chromium.
//!
//! - [`browser`]: the browser
//! - [`fresh`]: machines that know nothing of each other
//! - [`entry`]: the first visit, signing in
//! - [`devices`]: what can be done with a device
//! - [`pages`]: how each page looks, the history's filter
//! - [`pairing`]: the ways to pair, and devices that come and go in an open page
//! - [`versions`]: a vm-helper of another version than the Pi's

mod browser;
mod devices;
mod entry;
mod fresh;
mod pages;
mod pairing;
mod versions;

use std::process::ExitCode;

use testbed::trial::{self, Bed};

/// Where the browser finds the portal.
fn address(bed: &Bed) -> String {
    format!("http://127.0.0.1:{}", bed.pair.portal_port)
}

fn main() -> ExitCode {
    trial::run(&[
        ("a_new_pi_is_claimed_once", entry::claim),
        (
            "a_vm_is_tested_and_paired_and_devices_come_and_go_in_the_open_page",
            pairing::by_form,
        ),
        (
            "the_page_with_the_line_turns_green_by_itself",
            pairing::by_line,
        ),
        (
            "a_password_brings_the_key_and_disconnect_says_what_remains",
            pairing::by_password,
        ),
        (
            "each_action_at_a_device_shows_its_outcome",
            devices::actions,
        ),
        (
            "a_device_that_means_no_good_is_shown_harmlessly",
            devices::hostile,
        ),
        (
            "a_port_is_switched_off_and_on_at_a_click",
            devices::power_cycle,
        ),
        (
            "helpers_of_other_versions_work_and_an_older_one_is_upgraded_by_the_line",
            versions::differ,
        ),
        (
            "nothing_moves_while_another_device_comes_and_goes",
            devices::steady,
        ),
        ("everything_works_without_script", devices::without_script),
        ("the_history_is_filtered", pages::history),
        ("each_page_fits_its_window_and_breaks_nothing", pages::all),
    ])
}
