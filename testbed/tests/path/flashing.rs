//! Real flashing tools against boards that answer as their bootloaders do.

use std::time::Duration;

use testbed::machine::CEILING;
use testbed::pattern;
use testbed::redir::{Event, Kind};
use testbed::trial::{self, Bed, Outcome};

use crate::container::{Container, ROOT};

/// A sketch of this size fills 32 pages of the Uno's flash.
const SKETCH: usize = 4096;

pub fn uno(bed: &Bed) -> Outcome {
    let container = Container::start(bed)?;
    let plug = bed.plug(Kind::Uno)?;
    let node = bed.attached(&plug)?.ttys.remove(0).node;
    let sketch = pattern::bytes(1, SKETCH);
    bed.vm()
        .put(&format!("{ROOT}/tmp/sketch.bin"), 0o644, &sketch)?;
    // As the Arduino IDE calls it.
    let output = container.sh(&format!(
        "avrdude -p atmega328p -c arduino -P {node} -b 115200 -D -U flash:w:/tmp/sketch.bin:r"
    ))?;
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(
        output
            .stderr
            .contains(&format!("{SKETCH} bytes of flash verified")),
        "{}",
        output.stderr
    );

    let device = bed.device(&plug)?;
    let flash = device.flash().ok_or("the Uno has no flash")?;
    assert_eq!(pattern::sha256(&flash[..SKETCH]), pattern::sha256(&sketch));
    let log: Vec<_> = device.log().into_iter().map(|entry| entry.event).collect();
    for wanted in [
        Event::Bootloader(true),
        Event::Baud {
            line: 0,
            baud: 115_200,
        },
    ] {
        assert!(log.contains(&wanted), "{wanted:?} is not in {log:?}");
    }
    let reset = |event: &Event| matches!(event, Event::Control { dtr: true, .. });
    assert!(log.iter().any(reset), "DTR never rose: {log:?}");
    Ok(())
}

pub fn leonardo(bed: &Bed) -> Outcome {
    let plug = bed.plug(Kind::Leonardo)?;
    let device = bed.device(&plug)?;
    // Long enough to be looked at on slow machines.
    device.set_bootloader_stay(Duration::from_secs(8));
    let product = || -> Result<String, String> {
        let attachment = bed.attached(&plug).map_err(|error| error.to_string())?;
        let local = attachment.local_busid.ok_or("no busid on the VM")?;
        bed.vm()
            .check(&format!("cat /sys/bus/usb/devices/{local}/idProduct"))
            .map_err(|error| error.to_string())
    };
    let shows = |wanted: &str| {
        trial::wait_until(&format!("the Leonardo as {wanted}"), || match product()? {
            found if found == wanted => Ok(()),
            found => Err(format!("it is {found}")),
        })
    };
    shows("8036")?;
    let node = bed.attached(&plug)?.ttys.remove(0).node;
    bed.vm().touch_1200(&node)?;
    assert!(
        device.wait_until(CEILING, |device| device.log().iter().any(|entry| entry
            .event
            == Event::Baud {
                line: 0,
                baud: 1200
            })),
        "the touch did not arrive"
    );
    shows("0036")?;
    shows("8036")?;
    assert_eq!(bed.attached(&plug)?.ttys.remove(0).node, node);
    Ok(())
}
