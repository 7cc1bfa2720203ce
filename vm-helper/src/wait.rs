//! Waiting for a state of the kernel's files, which raise no events of their own.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How often to look while the state is expected any moment. The drivers and udev work meanwhile,
/// and looking takes up to 100 µs from them.
const EAGER: Duration = Duration::from_millis(15);
/// How often to look once the usual time is over.
const PATIENT: Duration = Duration::from_millis(25);
/// What counts as the usual time.
const USUAL: Duration = Duration::from_secs(2);

/// Look until there is something to see or an error; none when the time is over.
pub(crate) fn until<T, E>(
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let start = Instant::now();
    loop {
        if let Some(seen) = look()? {
            return Ok(Some(seen));
        }
        let waited = start.elapsed();
        if waited >= limit {
            return Ok(None);
        }
        thread::sleep(if waited < USUAL { EAGER } else { PATIENT });
    }
}
