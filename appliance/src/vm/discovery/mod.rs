//! Multicast DNS: the Pi's own name on the network, and the VMs that are there.
//!
//! - [`found`]: what a machine says of itself, made fit for the form
//! - [`resolve`]: addresses of names in `.local`
//!
//! The Pi answers all the time; it looks for others only while somebody looks at the page, since each
//! answer wakes the box.

pub mod found;
pub mod resolve;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mdns_sd::{
    DaemonEvent, DnsNameChange, IfKind, RRType, Receiver, ServiceDaemon, ServiceEvent, ServiceInfo,
};
use tokio::{
    sync::{self, Notify, watch},
    time::{Instant, sleep, sleep_until},
};

pub use found::Found;

/// What the VM's package announces.
const HELPER: &str = "_usbip-vm._tcp.local.";
/// What many other machines announce.
const SSH: &str = "_ssh._tcp.local.";
const WEB: &str = "_http._tcp.local.";
/// How often the network's interfaces are looked at, in seconds.
const INTERFACES: u32 = 10;
/// How long the search goes on after somebody looked.
const SEARCH: Duration = Duration::from_secs(45);
/// How long to wait after multicast DNS could not be set up.
const AGAIN: Duration = Duration::from_mins(1);
/// Machines that are remembered; a network with more has them named by hand.
const MOST: usize = 64;

/// What is known of the network. Cheap to clone.
#[derive(Clone)]
pub struct Discovery {
    shared: Arc<Shared>,
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery").finish_non_exhaustive()
    }
}

struct Shared {
    /// What speaks to the network; none while it does not work.
    daemon: sync::Mutex<Option<ServiceDaemon>>,
    /// Machines by their full service name.
    machines: watch::Sender<BTreeMap<String, Found>>,
    /// The Pi's name without `.local`; none while it is not announced.
    name: watch::Sender<Option<String>>,
    looked: Mutex<Option<Instant>>,
    look: Notify,
}

impl Discovery {
    /// Announces the portal at this port under this name, without `.local`, and looks for VMs when asked
    /// to, on the current runtime.
    #[must_use]
    pub fn start(name: String, port: u16) -> Self {
        let this = Self::silent();
        let shared = Arc::clone(&this.shared);
        tokio::spawn(async move {
            loop {
                if let Err(error) = shared.run(&name, port).await {
                    tracing::warn!(%error, "multicast DNS does not work; it is tried again in a minute");
                }
                shared.name.send_replace(None);
                sleep(AGAIN).await;
            }
        });
        this
    }

    /// One that announces and finds nothing.
    #[must_use]
    pub fn silent() -> Self {
        let shared = Shared {
            daemon: sync::Mutex::new(None),
            machines: watch::Sender::default(),
            name: watch::Sender::new(None),
            looked: Mutex::default(),
            look: Notify::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// One that has found these.
    #[must_use]
    pub fn of(found: impl IntoIterator<Item = Found>) -> Self {
        let this = Self::silent();
        let numbered = found.into_iter().enumerate();
        let machines = numbered.map(|(n, found)| (n.to_string(), found)).collect();
        this.shared.machines.send_replace(machines);
        this
    }

    /// The Pi's name on the network with `.local`, as long as it is announced.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        let name = self.shared.name.borrow();
        name.as_ref().map(|name| format!("{name}.local"))
    }

    /// Somebody looks: the search goes on for a while.
    pub fn look(&self) {
        let mut looked = self
            .shared
            .looked
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *looked = Some(Instant::now());
        self.shared.look.notify_one();
    }

    /// What was found, each machine once: those with vm-helper first, then by name.
    #[must_use]
    pub fn found(&self) -> Vec<Found> {
        let machines = self.shared.machines.borrow();
        let mut by_host = BTreeMap::<&str, &Found>::new();
        for found in machines.values() {
            let known = by_host.entry(&found.host).or_insert(found);
            if found.helper.is_some() {
                *known = found;
            }
        }
        let mut list: Vec<Found> = by_host.into_values().cloned().collect();
        list.sort_by_key(|found| (found.helper.is_none(), found.name.to_lowercase()));
        list
    }

    /// Changes whenever that does.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<BTreeMap<String, Found>> {
        self.shared.machines.subscribe()
    }
}

impl Shared {
    async fn run(&self, name: &str, port: u16) -> Result<(), mdns_sd::Error> {
        let daemon = ServiceDaemon::new()?;
        let ended = self.serve(&daemon, name, port).await;
        *self.daemon.lock().await = None;
        // Its thread ends with what it has announced.
        let _ = daemon.shutdown();
        ended
    }

    async fn serve(
        &self,
        daemon: &ServiceDaemon,
        name: &str,
        port: u16,
    ) -> Result<(), mdns_sd::Error> {
        daemon.set_ip_check_interval(INTERFACES)?;
        daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
        let monitor = daemon.monitor()?;
        let properties: &[(&str, &str)] = &[("path", "/")];
        let host = format!("{name}.local.");
        let portal = ServiceInfo::new(WEB, name, &host, "", port, properties)?.enable_addr_auto();
        daemon.register(portal)?;
        self.name.send_replace(Some(name.to_owned()));
        *self.daemon.lock().await = Some(daemon.clone());
        loop {
            tokio::select! {
                event = monitor.recv_async() => match event {
                    Ok(event) => self.monitor(event),
                    Err(_) => return Ok(()),
                },
                () = self.look.notified() => self.search(daemon, &monitor).await?,
            }
        }
    }

    /// Looks for machines until nobody has looked at them for a while.
    async fn search(
        &self,
        daemon: &ServiceDaemon,
        monitor: &Receiver<DaemonEvent>,
    ) -> Result<(), mdns_sd::Error> {
        let helpers = daemon.browse(HELPER)?;
        let others = daemon.browse(SSH)?;
        loop {
            let until = self.looked() + SEARCH;
            tokio::select! {
                event = monitor.recv_async() => match event {
                    Ok(event) => self.monitor(event),
                    Err(_) => return Ok(()),
                },
                Ok(event) = helpers.recv_async() => self.hear(event),
                Ok(event) = others.recv_async() => self.hear(event),
                () = sleep_until(until) => if self.looked() + SEARCH <= Instant::now() { break },
            }
        }
        daemon.stop_browse(HELPER)?;
        daemon.stop_browse(SSH)?;
        // What is shown next is asked for anew.
        self.machines.send_replace(BTreeMap::new());
        Ok(())
    }

    fn looked(&self) -> Instant {
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.unwrap_or_else(Instant::now)
    }

    fn monitor(&self, event: DaemonEvent) {
        match event {
            DaemonEvent::NameChange(DnsNameChange {
                new_name,
                rr_type: RRType::A | RRType::AAAA,
                ..
            }) => {
                let name = new_name.trim_end_matches('.').trim_end_matches(".local");
                let changed = self.name.send_if_modified(|now| {
                    let differs = now.as_deref() != Some(name);
                    if differs {
                        *now = Some(name.to_owned());
                    }
                    differs
                });
                if changed {
                    tracing::info!(
                        name,
                        "the name on the network is taken; this Pi has another"
                    );
                }
            }
            // Without a network there is one with every packet.
            DaemonEvent::Error(error) => tracing::debug!(%error, "multicast DNS"),
            _ => {}
        }
    }

    fn hear(&self, event: ServiceEvent) {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                let Some(found) = Found::read(&service, service.ty_domain == HELPER) else {
                    return;
                };
                self.machines.send_if_modified(|machines| {
                    if machines.len() >= MOST && !machines.contains_key(&service.fullname) {
                        return false;
                    }
                    let before = machines.insert(service.fullname.clone(), found.clone());
                    before != Some(found)
                });
            }
            ServiceEvent::ServiceRemoved(_, name) => {
                self.machines
                    .send_if_modified(|machines| machines.remove(&name).is_some());
            }
            _ => {}
        }
    }
}
