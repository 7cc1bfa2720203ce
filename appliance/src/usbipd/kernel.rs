//! Calls to the [`Exporter`], off the runtime and with a time limit.

use std::{io, net::TcpStream, os::fd::AsFd, sync::Arc, time::Duration};

use protocol::{BusId, DevId};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use super::{Exporter, session::Claim};

/// sysfs answers in microseconds, unless the device's lock is held: a device's reset takes up to
/// five seconds where the device does not answer.
const LIMIT: Duration = Duration::from_secs(6);

/// The devices, for asynchronous callers.
#[derive(Clone)]
pub(super) struct Kernel(pub(super) Arc<dyn Exporter>);

impl Kernel {
    /// Run one call.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Exporter) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let exporter = Arc::clone(&self.0);
        let task = spawn_blocking(move || call(&*exporter));
        timeout(LIMIT, task).await.map_or_else(timed_out, finished)
    }

    /// Hand a socket over to this generation of a device, and say how that came out. A hand-over that
    /// comes through after the time limit, the outer error, is undone; the device stays claimed until
    /// then.
    pub(super) async fn hand_over(
        &self,
        busid: &BusId,
        devid: DevId,
        socket: Arc<TcpStream>,
        claim: Claim,
    ) -> io::Result<(Claim, io::Result<()>)> {
        let (exporter, device) = (Arc::clone(&self.0), busid.clone());
        let mut task =
            spawn_blocking(move || (claim, hand_over(&*exporter, &device, devid, &socket)));
        match timeout(LIMIT, &mut task).await {
            Ok(result) => result.map_err(io::Error::other),
            Err(elapsed) => {
                tokio::spawn(self.clone().undo(busid.clone(), task));
                timed_out(elapsed)
            }
        }
    }

    async fn undo(self, busid: BusId, late: JoinHandle<(Claim, io::Result<()>)>) {
        if let Ok((_claim, Ok(()))) = late.await {
            self.end_unknown(&busid).await;
        }
    }

    /// End a session that nobody is told of.
    pub(super) async fn end_unknown(&self, busid: &BusId) {
        let device = busid.clone();
        warn_unless(self.call(move |e| e.end_session(&device)).await, busid);
    }
}

/// The importer is told of one generation and must not get another, so a device that is replugged
/// meanwhile is taken back.
fn hand_over(
    exporter: &dyn Exporter,
    busid: &BusId,
    devid: DevId,
    socket: &TcpStream,
) -> io::Result<()> {
    let check = || match exporter.devid(busid)? {
        Some(now) if now == devid => Ok(()),
        _ => Err(replugged()),
    };
    check()?;
    exporter.hand_over(busid, socket.as_fd())?;
    check().inspect_err(|_| {
        warn_unless(exporter.end_session(busid), busid);
    })
}

fn warn_unless(ended: io::Result<()>, busid: &BusId) {
    if let Err(error) = ended {
        tracing::warn!(%busid, %error, "failed to end a session nobody knows of");
    }
}

pub(super) fn replugged() -> io::Error {
    io::Error::other("the device was replugged")
}

fn finished<T>(result: Result<io::Result<T>, tokio::task::JoinError>) -> io::Result<T> {
    result.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn timed_out<T>(_: tokio::time::error::Elapsed) -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        "the kernel did not answer in time",
    ))
}
