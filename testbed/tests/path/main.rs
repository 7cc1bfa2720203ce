//! Plug into the Pi, use on the VM: the whole path on two machines with real kernels.
//!
//! - [`rows`]: plug, unplug, and the restart of either machine
//! - [`chips`]: every chip that is played, its driver and what it says of itself
//! - [`container`]: what a container on the VM may open
//! - [`alone`]: what is not exported, hubs
//! - [`replugs`]: re-enumeration and many busids
//! - [`flashing`]: avrdude, the touch at 1200 baud
//! - [`device`]: what a person does about one device in the portal
//! - [`stock`]: the `usbip` tool from the VM
//! - [`join`]: the portal's line, which installs and pairs
//! - [`package`]: the VM's package, installed, upgraded, removed, purged

mod alone;
mod chips;
mod container;
mod device;
mod flashing;
mod join;
mod package;
mod replugs;
mod rows;
mod stock;

use std::process::ExitCode;

use testbed::trial;

fn main() -> ExitCode {
    trial::run(&[
        (
            "plugged_in_it_is_a_tty_and_unplugged_it_is_gone",
            rows::plug_and_unplug,
        ),
        (
            "each_chip_has_its_driver_and_shows_itself_as_on_the_pi",
            chips::all,
        ),
        (
            "a_container_opens_ttys_and_nothing_else",
            container::opens_ttys_only,
        ),
        (
            "network_keyboard_disk_and_hub_are_left_alone",
            alone::left_alone,
        ),
        (
            "devices_on_a_hub_are_attached_and_go_with_it",
            alone::on_a_hub,
        ),
        ("avrdude_in_a_container_programs_an_uno", flashing::uno),
        (
            "a_touch_at_1200_baud_starts_a_leonardos_bootloader",
            flashing::leonardo,
        ),
        (
            "an_esp32_s3_changes_its_id_ten_times_and_leaks_nothing",
            replugs::changing_id,
        ),
        (
            "the_seventeenth_busid_is_exported_during_a_transfer",
            replugs::many_busids,
        ),
        (
            "in_the_portal_a_device_is_named_detached_and_attached",
            device::named_and_detached,
        ),
        (
            "a_port_that_is_switched_off_and_on_gives_its_device_back",
            device::switched_off_and_on,
        ),
        (
            "the_stock_usbip_tool_lists_attaches_and_detaches",
            stock::usbip,
        ),
        (
            "after_the_pi_restarts_eight_devices_are_back_under_their_names",
            rows::pi_restarts,
        ),
        (
            "after_the_vm_restarts_the_session_brings_eight_back",
            rows::vm_restarts_with_session,
        ),
        (
            "after_the_vm_restarts_usb_boot_attach_alone_brings_all_back",
            rows::vm_restarts_without_session,
        ),
        ("one_line_from_the_portal_pairs_a_fresh_vm", join::one_line),
        ("the_line_pairs_a_vm_without_dpkg_too", join::without_dpkg),
        (
            "the_package_installs_upgrades_goes_and_leaves_nothing",
            package::lifecycle,
        ),
    ])
}
