//! What goes wrong between a Pi and a VM, and that it mends itself: on two machines with real kernels.
//!
//! - [`power`]: either machine loses its power
//! - [`cable`]: the network goes away, for a while and for longer
//! - [`port`]: strangers and nonsense at port 3240
//! - [`restart`]: the programs of the session end, the appliance above all
//! - [`reasons`]: each thing that can be set up wrong has a sentence of its own
//! - [`by_hand`]: the Pi's key on the VM, used by a person
//! - [`wear`]: ttys opened and closed again and again, a clock that is wrong
//! - [`amid`]: a transfer that is under way meanwhile

mod amid;
mod by_hand;
mod cable;
mod port;
mod power;
mod reasons;
mod restart;
mod wear;

use std::process::ExitCode;

use testbed::trial;

fn main() -> ExitCode {
    trial::run(&[
        (
            "a_stranger_at_port_3240_gets_no_byte_and_is_logged",
            port::stranger,
        ),
        (
            "nonsense_at_port_3240_is_refused_and_disturbs_nothing",
            port::nonsense,
        ),
        (
            "the_pis_key_runs_the_handler_by_hand_and_nothing_else",
            by_hand::forced_command,
        ),
        (
            "a_tty_is_opened_and_closed_a_hundred_times",
            wear::open_and_close,
        ),
        (
            "helper_and_ssh_are_killed_and_the_session_is_back",
            restart::session,
        ),
        (
            "a_transfer_outlives_restarts_of_the_appliance",
            restart::appliance,
        ),
        ("the_pis_clock_may_be_wrong_by_years", wear::wrong_clock),
        (
            "each_obstacle_to_the_session_has_its_own_sentence",
            reasons::session,
        ),
        (
            "a_vm_without_vhci_is_told_and_attaches_when_it_is_there",
            reasons::vhci_missing,
        ),
        (
            "a_blocked_port_3240_is_told_and_attaches_when_it_is_open",
            reasons::port_blocked,
        ),
        (
            "a_transfer_outlives_ten_seconds_without_network",
            cable::short_cut,
        ),
        (
            "a_cut_beyond_the_grace_time_leaves_nothing_and_mends",
            cable::long_cut,
        ),
        (
            "a_vm_without_power_is_told_and_has_all_back_after_its_boot",
            power::vm,
        ),
        (
            "a_long_grace_time_does_not_keep_a_rebooted_vm_waiting",
            power::vm_with_long_grace,
        ),
        (
            "a_pi_without_power_is_told_and_all_is_back_after_its_boot",
            power::pi,
        ),
    ])
}
