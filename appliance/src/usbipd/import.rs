//! Deciding about a request and carrying it out.

use std::{
    error::Error,
    io,
    net::{IpAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use protocol::{
    BusId, DevId,
    wire::{self, Status},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Exporter, Exports, RefusedImport,
    hangup::HangupWatch,
    inherited::Inherited,
    kernel::{Kernel, replugged},
    session::{Claim, Session, SessionFacts, Sessions},
    socket,
};
use crate::usb::{StubStatus, UsbDevice};

/// How long a duplicate import waits for the old connection to be disowned: two probes.
const ASK_BEFORE_IMPORT: Duration = Duration::from_millis(1500);

/// How long a device list waits for the same: one probe, since a live peer never disowns it and
/// has to wait for this long.
const ASK_BEFORE_LIST: Duration = Duration::from_millis(300);

/// By how much a session must be older than the time that its peer has been running to be of an earlier
/// boot of it: both are rounded, and the request takes a moment.
const BEFORE_BOOT: Duration = Duration::from_secs(2);

/// How long an import waits for its device to be bound, which takes milliseconds when all is well;
/// the VM's kernel waits as long for its first answer (`USB_CTRL_GET_TIMEOUT`, include/linux/usb.h).
const BIND: Duration = Duration::from_secs(5);

/// How long usbip-host may take to reset a device after its connection ended.
const RELEASE: Duration = Duration::from_secs(4);

/// Between two looks at `usbip_status` while a device is being released.
const RELEASE_POLL: Duration = Duration::from_millis(10);

/// Everything an import needs.
pub(super) struct Importer {
    pub(super) kernel: Kernel,
    pub(super) sessions: Arc<Sessions>,
    pub(super) inherited: Inherited,
    pub(super) watch: Arc<HangupWatch>,
}

/// A session that has begun, and those whose place it took. Their ends must be reported first: to
/// the manager, busid and devid name them all.
pub(super) struct Begun {
    pub(super) session: Arc<Session>,
    pub(super) former: Option<Arc<Session>>,
    pub(super) inherited: Option<DevId>,
}

/// A refusal: what the importer is told, and what people are.
pub(super) struct Refusal {
    /// None where the import had been granted: all that is left is to reset the connection.
    pub(super) status: Option<Status>,
    pub(super) reason: RefusedImport,
}

impl Refusal {
    fn not_exported(busid: &BusId) -> Self {
        Self {
            status: Some(Status::NoDevice),
            reason: RefusedImport::NotExported(busid.clone()),
        }
    }

    fn busy(busid: &BusId) -> Self {
        Self {
            status: Some(Status::DeviceBusy),
            reason: RefusedImport::Busy(busid.clone()),
        }
    }

    fn broken(busid: &BusId) -> Self {
        Self {
            status: Some(Status::DeviceError),
            reason: RefusedImport::Kernel(
                busid.clone(),
                "the device failed to reset and must be bound again".to_owned(),
            ),
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
    fn kernel(busid: &BusId, error: io::Error) -> Self {
        Self {
            status: Some(Status::NotAvailable),
            reason: RefusedImport::Kernel(busid.clone(), with_sources(&error)),
        }
    }
}

impl Importer {
    /// The devices `peer` may import now. Devices that it has imported are left out, as the stock
    /// server does, unless it turns out to have been restarted, or says for how long it has been running.
    pub(super) async fn devlist(
        &self,
        exports: &Exports,
        peer: IpAddr,
        running: Option<Duration>,
    ) -> io::Result<Vec<wire::Device>> {
        let mut asked = JoinSet::new();
        for session in self.sessions.all() {
            if session.facts.peer == peer {
                let age = session.facts.since.elapsed();
                if running.is_some_and(|running| age > running + BEFORE_BOOT) {
                    // Asking it can take long: a probe waits while data is on its way.
                    session.end();
                }
                let grace = exports.grace;
                asked.spawn(async move { session.ends_when_asked(ASK_BEFORE_LIST, grace).await });
            }
        }
        asked.join_all().await;
        let devices = self.kernel.call(Exporter::devices).await?;
        Ok(devices
            .iter()
            .filter(|device| exports.devices.contains_key(&device.busid) && self.importable(device))
            .map(UsbDevice::on_the_wire)
            .collect())
    }

    /// Free, or about to be: an import waits for the release.
    fn importable(&self, device: &UsbDevice) -> bool {
        match device.stub {
            Some(StubStatus::Available) => true,
            Some(StubStatus::Used) => {
                self.sessions
                    .of(&device.busid)
                    .is_none_or(|session| session.has_hung_up())
                    && !self.inherited.holds(&device.busid, device.devid)
            }
            Some(StubStatus::Error) | None => false,
        }
    }

    /// Hand the socket to the kernel and tell the importer; in this order, as the stock server does, so
    /// that it is told what fails. Only what nobody has had yet is granted first, or was `granted` before
    /// it was asked for.
    pub(super) async fn import(
        &self,
        exports: &mut watch::Receiver<Exports>,
        socket: TcpStream,
        busid: &BusId,
        granted: Option<wire::Device>,
        peer: IpAddr,
    ) -> Result<Begun, Refusal> {
        let claim = self.sessions.claim(busid);
        let claim = claim.ok_or_else(|| Refusal::busy(busid));
        if let Some(device) = granted {
            return self.fulfil(exports, socket, &device, claim, peer).await;
        }
        let refused = |error| Refusal::kernel(busid, error);
        let claim = claim?;
        let (bound, fresh, grace) = {
            let exports = exports.borrow();
            let (bound, fresh) = (exports.devices.get(busid), exports.fresh.get(busid));
            (bound.cloned(), fresh.cloned(), exports.grace)
        };
        if let Some(device) = fresh {
            // The importer's kernel leaves a new device alone for 100 ms (`HUB_DEBOUNCE_STABLE`,
            // drivers/usb/core/hub.c); what it asks earlier waits in the socket.
            let granted = wire::encode_import(Ok(&device));
            socket::send_now(&socket, &granted).map_err(refused)?;
            return self.fulfil(exports, socket, &device, Ok(claim), peer).await;
        }
        let device = bound.ok_or_else(|| Refusal::not_exported(busid))?;
        let socket = Arc::new(socket);
        socket::prepare(&socket, grace).map_err(refused)?;
        let session = self.begin(&device, &socket, peer, claim, grace).await?;
        if let Err(error) = socket::send_now(&*socket, &wire::encode_import(Ok(&device))) {
            self.kernel.end_unknown(busid).await;
            return Err(refused(error));
        }
        Ok(self.begun(session))
    }

    /// Hand over what was granted, once it is bound. What cannot be had is reset.
    async fn fulfil(
        &self,
        exports: &mut watch::Receiver<Exports>,
        socket: TcpStream,
        device: &wire::Device,
        claim: Result<Claim, Refusal>,
        peer: IpAddr,
    ) -> Result<Begun, Refusal> {
        let session = async {
            let (claim, socket) = (claim?, Arc::new(socket));
            let grace = until_bound(exports, &device.busid).await?;
            let prepared = socket::prepare(&socket, grace);
            prepared.map_err(|error| Refusal::kernel(&device.busid, error))?;
            self.begin(device, &socket, peer, claim, grace).await
        };
        let session = session.await.map_err(|refusal| Refusal {
            status: None,
            ..refusal
        })?;
        Ok(self.begun(session))
    }

    fn begun(&self, (session, _claim): (Session, Claim)) -> Begun {
        let session = Arc::new(session);
        let busid = &session.facts.busid;
        Begun {
            inherited: self.inherited.take(busid),
            former: self.sessions.insert(Arc::clone(&session)),
            session,
        }
    }

    /// Give the socket to the kernel, which may have to be done with the device's last session first.
    async fn begin(
        &self,
        device: &wire::Device,
        socket: &Arc<TcpStream>,
        peer: IpAddr,
        claim: Claim,
        grace: Duration,
    ) -> Result<(Session, Claim), Refusal> {
        // It is free, as a rule.
        let (mut claim, mut begun) = self.hand_over(device, socket, peer, claim).await?;
        if begun.is_err() {
            self.free(device, grace).await?;
            (claim, begun) = self.hand_over(device, socket, peer, claim).await?;
        }
        let session = begun.map_err(|error| Refusal::kernel(&device.busid, error))?;
        Ok((session, claim))
    }

    /// One try. The inner error is the kernel's.
    async fn hand_over(
        &self,
        device: &wire::Device,
        socket: &Arc<TcpStream>,
        peer: IpAddr,
        claim: Claim,
    ) -> Result<(Claim, io::Result<Session>), Refusal> {
        let busid = &device.busid;
        let refused = |error| Refusal::kernel(busid, error);
        let facts = SessionFacts {
            busid: busid.clone(),
            devid: device.devid,
            peer,
            since: Instant::now(),
        };
        let session = Session::new(facts, Arc::clone(socket), &self.watch).map_err(refused)?;
        let handed_over = self
            .kernel
            .hand_over(busid, device.devid, Arc::clone(socket), claim);
        let (claim, result) = handed_over.await.map_err(refused)?;
        Ok((claim, result.map(|()| session)))
    }

    /// Wait until a device that could not be had is free, as far as it may be freed.
    async fn free(&self, device: &wire::Device, grace: Duration) -> Result<(), Refusal> {
        let busid = &device.busid;
        let asked = busid.clone();
        let seen = self.kernel.call(move |e| e.device(&asked)).await;
        let seen = seen.map_err(|error| Refusal::kernel(busid, error))?;
        match seen {
            Some(seen) if seen.devid != device.devid => Err(Refusal::kernel(busid, replugged())),
            Some(UsbDevice {
                stub: Some(status), ..
            }) => match status {
                StubStatus::Available => Ok(()),
                StubStatus::Error => Err(Refusal::broken(busid)),
                StubStatus::Used => self.settle(device, grace).await,
            },
            _ => Err(Refusal::not_exported(busid)),
        }
    }

    /// A device in use is asked for again: wait until it is free, if its connection is dead.
    async fn settle(&self, device: &wire::Device, grace: Duration) -> Result<(), Refusal> {
        let busid = &device.busid;
        if self.inherited.holds(busid, device.devid) {
            return Err(Refusal::busy(busid));
        }
        if let Some(session) = self.sessions.of(busid)
            && !session.ends_when_asked(ASK_BEFORE_IMPORT, grace).await
        {
            return Err(Refusal::busy(busid));
        }
        timeout(RELEASE, self.released(busid))
            .await
            .unwrap_or_else(|_| Err(Refusal::busy(busid)))
    }

    /// Wait until the kernel is done with a session that hung up, so that what is reported is what
    /// sysfs says; not for long, and not when another session has followed.
    pub(super) async fn until_free(&self, session: &Arc<Session>) {
        let free = async {
            while self
                .sessions
                .of(&session.facts.busid)
                .is_some_and(|now| Arc::ptr_eq(&now, session))
            {
                let busid = session.facts.busid.clone();
                match self.kernel.call(move |e| e.stub_status(&busid)).await {
                    Ok(Some(StubStatus::Used)) => sleep(RELEASE_POLL).await,
                    _ => return,
                }
            }
        };
        // Whoever listens finds out by asking again.
        let _ = timeout(RELEASE, free).await;
    }

    async fn released(&self, busid: &BusId) -> Result<(), Refusal> {
        loop {
            let asked = busid.clone();
            let status = self.kernel.call(move |e| e.stub_status(&asked)).await;
            match status.map_err(|error| Refusal::kernel(busid, error))? {
                Some(StubStatus::Available) => return Ok(()),
                Some(StubStatus::Used) => sleep(RELEASE_POLL).await,
                Some(StubStatus::Error) => return Err(Refusal::broken(busid)),
                None => return Err(Refusal::not_exported(busid)),
            }
        }
    }
}

/// Wait until a device that is being bound is so. Returns the grace time by then.
async fn until_bound(
    exports: &mut watch::Receiver<Exports>,
    busid: &BusId,
) -> Result<Duration, Refusal> {
    let decided = exports.wait_for(|exports| {
        exports.devices.contains_key(busid) || !exports.fresh.contains_key(busid)
    });
    match timeout(BIND, decided).await {
        Ok(Ok(exports)) if exports.devices.contains_key(busid) => Ok(exports.grace),
        _ => Err(Refusal::not_exported(busid)),
    }
}

/// The message and those of its sources: what names the file and what the kernel answered.
fn with_sources(error: &io::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
