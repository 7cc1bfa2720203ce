//! What wears things out: ttys opened and closed again and again, and a clock that is wrong.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use testbed::redir::Kind;
use testbed::trial::{Bed, Outcome, Undo};

use crate::amid::amid_transfer;
use crate::restart;

const BYTES: usize = 64 << 10;
/// Opens without waiting for a carrier, writes a few bytes and closes, a hundred times.
const OPEN_AND_CLOSE: &str = "use Fcntl; for (1..100) { \
    sysopen(my $tty, $ARGV[0], O_RDWR | O_NONBLOCK | O_NOCTTY) or die \"open $_: $!\"; \
    syswrite($tty, 'bytes') or die \"write $_: $!\"; close($tty) or die \"close $_: $!\"; }";

pub fn open_and_close(bed: &Bed) -> Outcome {
    for kind in [Kind::Ft231x, Kind::Cp2102] {
        let plug = bed.plug(kind)?;
        let attachment = bed.attached(&plug)?;
        let node = &*attachment.ttys[0].node;
        let begin = Instant::now();
        bed.vm()
            .put("/run/open-and-close", 0o600, OPEN_AND_CLOSE.as_bytes())?;
        bed.vm()
            .check(&format!("perl /run/open-and-close {node}"))?;
        eprintln!("{kind}: {:.1} s", begin.elapsed().as_secs_f64());
        assert_eq!(bed.attached(&plug)?, attachment);
        bed.pass(node, &bed.device(&plug)?, 115_200, BYTES)?;
    }
    Ok(())
}

pub fn wrong_clock(bed: &Bed) -> Outcome {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let _right = Undo {
        machine: bed.pi(),
        command: format!("date -s @{now}"),
    };
    let handler = "pgrep -f 'usb-event-handler [s]ession'";
    let before = bed.vm().check(handler)?;
    let plug = bed.plug(Kind::Cp2102)?;
    let attachment = bed.attached(&plug)?;
    let (passed, ()) = amid_transfer(bed, &plug, &attachment, 4 * BYTES, || {
        bed.pi().check("date -s '2001-02-03 04:05:06'")?;
        Ok(())
    })?;
    passed?;
    bed.unplug(&plug)?;
    bed.gone(&attachment)?;
    let plug = bed.plug(Kind::Cp2102)?;
    let attachment = bed.attached(&plug)?;
    restart::shown_attached(bed, &plug.busid)?;
    assert_eq!(bed.vm().check(handler)?, before, "the session was lost");

    // Started in the past, then far in the future.
    restart::replaced(bed.pi(), "pidof appliance", "killall appliance")?;
    restart::shown_attached(bed, &plug.busid)?;
    bed.pi().check("date -s '2037-02-03 04:05:06'")?;
    bed.unplug(&plug)?;
    bed.gone(&attachment)?;
    let plug = bed.plug(Kind::Cp2102)?;
    bed.attached(&plug)?;
    restart::shown_attached(bed, &plug.busid)?;
    Ok(())
}
