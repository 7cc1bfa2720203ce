//! A machine loses its power.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use protocol::line::Attachment;
use testbed::agent::Transfer;
use testbed::redir::Kind;
use testbed::trial::{Bed, Outcome, Plug, wait_until_within};

use crate::amid::amid_transfer;
use crate::cable;

const BYTES: usize = 64 << 10;
/// Seconds of a transfer, so that the power goes in its middle.
const LONG: usize = 512 << 10;
/// For what a transfer that was cut off has left in a device.
const LEFT: Duration = Duration::from_mins(1);
/// A lost peer is told within seconds; TCG is slow.
const TOLD: Duration = Duration::from_secs(20);

struct Two {
    plugs: [Plug; 2],
    attachments: [Attachment; 2],
}

fn two(bed: &Bed) -> Result<Two, Box<dyn Error>> {
    let first = bed.plug(Kind::Cp2102)?;
    let before = bed.attached(&first)?;
    let second = bed.plug(Kind::Esp32S3)?;
    let after = bed.attached(&second)?;
    Ok(Two {
        plugs: [first, second],
        attachments: [before, after],
    })
}

/// Waits until both are attached under the names they had, nothing else has a name, and bytes pass.
fn all_back(bed: &Bed, two: &Two) -> Outcome {
    let begin = Instant::now();
    for (plug, before) in two.plugs.iter().zip(&two.attachments) {
        assert_eq!(nodes(&bed.attached(plug)?), nodes(before));
    }
    eprintln!("back {:.1} s after the boot", begin.elapsed().as_secs_f64());
    let mut expected: Vec<_> = two.attachments.iter().flat_map(nodes).collect();
    expected.sort_unstable();
    let found = bed.vm().check("ls -d /dev/ttyACM* /dev/ttyUSB*")?;
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
    assert_eq!(bed.vhci_in_use()?.len(), two.plugs.len());
    for (plug, before) in two.plugs.iter().zip(&two.attachments) {
        let (node, device) = (&*before.ttys[0].node, bed.device(plug)?);
        let left = device.unread();
        if left > 0 {
            // What comes while the tty is being opened is nobody's, so fewer than these arrive.
            let rest = Transfer {
                seed: 0,
                send: 0,
                receive: left,
                idle_ms: 2_000,
            };
            bed.vm().open_tty(node, 921_600)?.transfer(rest, LEFT)?;
            assert_eq!(device.unread(), 0);
        }
        bed.pass(node, &device, 115_200, BYTES)?;
    }
    Ok(())
}

fn nodes(attachment: &Attachment) -> Vec<&str> {
    attachment.ttys.iter().map(|tty| &*tty.node).collect()
}

/// Cuts the VM's power, waits until the Pi says so, and boots it.
fn lose_vm(bed: &Bed, two: &Two) -> Outcome {
    let begin = Instant::now();
    bed.vm().kill();
    wait_until_within("word of the VM's end", TOLD, || {
        let view = bed.view().map_err(|error| error.to_string())?;
        let kind = view["session"]["failure"]["kind"].as_str();
        let silent = two.plugs.iter().all(|plug| {
            let devices = view["devices"].as_array();
            devices.is_some_and(|devices| {
                devices
                    .iter()
                    .any(|one| one["busid"] == plug.busid.as_str() && one["silent"] == true)
            })
        });
        match kind {
            Some("lost" | "unreachable") if silent => Ok(()),
            _ => Err(view.to_string()),
        }
    })?;
    eprintln!("told after {:.1} s", begin.elapsed().as_secs_f64());
    bed.vm().boot()?;
    Ok(())
}

/// Idle, with the grace time as it is.
pub fn vm(bed: &Bed) -> Outcome {
    let two = two(bed)?;
    lose_vm(bed, &two)?;
    all_back(bed, &two)
}

/// With data flowing, and a grace time that outlasts the boot by minutes.
pub fn vm_with_long_grace(bed: &Bed) -> Outcome {
    let _default = cable::set_grace(bed, 300)?;
    let two = two(bed)?;
    let (passed, ()) = amid_transfer(bed, &two.plugs[0], &two.attachments[0], LONG, || {
        lose_vm(bed, &two)
    })?;
    assert!(passed.is_err(), "the transfer outlived its machine");
    all_back(bed, &two)
}

/// With a reader that waits at an open tty.
pub fn pi(bed: &Bed) -> Outcome {
    let two = two(bed)?;
    let tty = bed
        .vm()
        .open_tty(&two.attachments[0].ttys[0].node, 115_200)?;
    thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let wanted = Transfer {
                seed: 0,
                send: 0,
                receive: 1,
                idle_ms: 180_000,
            };
            // The tty is closed with its end, as a program does that gets an error.
            tty.transfer(wanted, Duration::from_secs(200))
        });
        let begin = Instant::now();
        bed.pi().kill();
        wait_until_within("word of the Pi's end", TOLD, || {
            let known = bed.vm().check("cat /run/usbip-vm/pi").unwrap_or_default();
            let told = ["\"silent\"", "\"gone\""]
                .iter()
                .any(|state| known.contains(state));
            if told { Ok(()) } else { Err(known) }
        })?;
        eprintln!("told after {:.1} s", begin.elapsed().as_secs_f64());
        bed.vm()
            .wait_until("journalctl -q -b | grep 'the Pi does not answer'")?;
        bed.pi().boot()?;
        let read = reader.join().map_err(|_| "the reader panicked")??;
        let why = read.failure.unwrap_or_default();
        assert!(
            !why.is_empty() && !why.contains("stalled"),
            "the reader was to be told: {why:?}"
        );
        all_back(bed, &two)
    })
}
