//! A transfer that is under way while something happens.

use std::error::Error;
use std::thread;
use std::time::Duration;

use protocol::line::Attachment;
use testbed::trial::{self, Bed, Passed, Plug};

/// A transfer under TCG starts within this.
const BEGIN: Duration = Duration::from_secs(30);

/// Passes `count` bytes each way over a device's tty and runs `disturb` when an eighth of them has arrived. The
/// first of the results is the transfer's.
pub fn amid_transfer<T>(
    bed: &Bed,
    plug: &Plug,
    attachment: &Attachment,
    count: usize,
    disturb: impl FnOnce() -> Result<T, Box<dyn Error>>,
) -> Result<(Result<Passed, trial::Error>, T), Box<dyn Error>> {
    let device = bed.device(plug)?;
    let node = &*attachment.ttys[0].node;
    thread::scope(|scope| {
        let transfer = scope.spawn(|| bed.pass(node, &device, 921_600, count));
        let begun = device.wait_until(BEGIN, |device| device.received_len() > count / 8);
        assert!(
            begun && !transfer.is_finished(),
            "the transfer is not under way"
        );
        let result = disturb();
        let passed = transfer.join().map_err(|_| "the transfer panicked")?;
        Ok((passed, result?))
    })
}
