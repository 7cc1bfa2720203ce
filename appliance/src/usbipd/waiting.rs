//! The connection on which the VM waits for the next new device: a plug has no time to make one.

use std::{
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use protocol::wire::{self, Device};
use tokio::sync::oneshot;

use super::socket;

/// One at the most: there is one VM.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Option<Place>>);

struct Place {
    peer: IpAddr,
    /// As long as it waits.
    socket: Weak<OwnedFd>,
    given: oneshot::Sender<Device>,
}

impl Waiting {
    fn place(&self) -> MutexGuard<'_, Option<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wait, in place of who waited until now. Ends without a device when somebody else waits.
    pub(super) fn wait(&self, peer: IpAddr, socket: &Arc<OwnedFd>) -> oneshot::Receiver<Device> {
        let (given, device) = oneshot::channel();
        let socket = Arc::downgrade(socket);
        *self.place() = Some(Place {
            peer,
            socket,
            given,
        });
        device
    }

    /// Nobody waits any more.
    pub(super) fn end(&self) {
        *self.place() = None;
    }

    /// Grant a device to who waits, if that is a peer who may have it. It is said at once, so that who
    /// hears of the device otherwise has heard this before. Who left asks as usual.
    pub(super) fn give(&self, device: &Device, may_have: impl Fn(IpAddr) -> bool) {
        let place = self.place().take_if(|place| may_have(place.peer));
        let Some(Place { socket, given, .. }) = place else {
            return;
        };
        let told = socket.upgrade().is_some_and(|socket| {
            let sent = socket::send_now(socket, &wire::encode_import(Ok(device)));
            sent.is_ok()
        });
        if told {
            let _ = given.send(device.clone());
        }
    }
}
