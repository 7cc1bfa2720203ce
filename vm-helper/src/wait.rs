//! Waiting: for a descriptor, and for a state of the kernel's files, which raise no events of their own.

use std::{
    io,
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

/// How often to look. The drivers and udev work meanwhile, and looking takes up to 100 µs from them.
pub(crate) const PAUSE: Duration = Duration::from_millis(25);

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
        if start.elapsed() >= limit {
            return Ok(None);
        }
        thread::sleep(PAUSE);
    }
}

/// Wait until a descriptor can be used, or has failed; false when the time is over, or a signal came.
pub(crate) fn ready(what: impl AsFd, how: PollFlags, limit: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(what.as_fd(), how)];
    let limit = Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    };
    match poll(&mut fds, Some(&limit)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
