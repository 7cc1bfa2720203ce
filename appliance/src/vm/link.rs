//! The link: keeps one session with the paired VM, for ever.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use openssh::{ChildStdin, ChildStdout};
use protocol::line::{Answer, FailureKind as AnswerKind, PiHello, Request};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{
    conf::{self, Record},
    conversation::{Conversation, failed, refuse},
    discovery::Discovery,
    event::{Event, Failure, FailureKind, Pairing},
    failure::{Context, chain, failure},
    host_key::Pins,
    key::Key,
    master::Masters,
    session::{self, Rest, Session},
};

/// Requests that wait to be written.
const REQUEST_QUEUE: usize = 64;
/// Events that wait to be heard; the link waits when nobody hears them.
const EVENT_QUEUE: usize = 256;
/// For this long after a loss the VM is tried again every second or sooner.
const EAGER: Duration = Duration::from_mins(2);
/// Attempts are never closer together than this, whoever asks for them.
const CLOSEST: Duration = Duration::from_millis(250);
/// A session that lived for so long counts as a working one: its loss is followed by an attempt at
/// once.
const PROVEN: Duration = Duration::from_secs(10);
/// How long `close` may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// Where things are, and who we are.
#[derive(Debug, Clone)]
pub struct Config {
    /// The record of the pairing.
    pub vm_conf: PathBuf,
    /// The Pi's key and the pinned host keys.
    pub ssh_dir: PathBuf,
    /// For the ssh master's socket: in memory, and of a short name (a socket's path has at most
    /// 108 bytes, of which the crate needs about 50).
    pub control_dir: PathBuf,
    /// TCP port of the VM's SSH server.
    pub port: u16,
    /// The program that ssh runs to ask for a password: the appliance itself, see
    /// [`askpass`](super::askpass).
    pub askpass: PathBuf,
    /// Our greeting.
    pub hello: PiHello,
    /// What resolves names in `.local`, and finds VMs; none does where it is silent.
    pub discovery: Discovery,
}

impl Config {
    /// The appliance's own places.
    #[must_use]
    pub fn new(hello: PiHello) -> Self {
        Self {
            vm_conf: conf::PATH.into(),
            ssh_dir: "/data/ssh".into(),
            control_dir: "/run/usbip-ssh".into(),
            port: 22,
            // Where that cannot be found out, asking for a password fails and says so.
            askpass: std::env::current_exe().unwrap_or_default(),
            hello,
            discovery: Discovery::silent(),
        }
    }
}

/// Speaks to a running link. Clones speak to the same one; the link ends when all are gone.
#[derive(Debug, Clone)]
pub struct LinkHandle {
    requests: mpsc::Sender<Request>,
    kick: Arc<Notify>,
    look: Arc<Notify>,
    closing: watch::Sender<bool>,
    hello: PiHello,
    grace: Arc<AtomicU16>,
}

impl LinkHandle {
    /// Sends a request, without waiting. Every request that is taken is answered by one
    /// [`Event::Reply`], by an error when there is no session.
    ///
    /// # Errors
    /// The answer, when the queue is full or the link has ended; then no event follows.
    #[expect(
        clippy::result_large_err,
        reason = "the error is the answer, handled as one"
    )]
    pub fn send(&self, request: Request) -> Result<(), Answer> {
        self.requests.try_send(request).map_err(|refused| {
            let request = refused.into_inner();
            let message = format!("{request} not sent: too many requests wait");
            failed(AnswerKind::Other, message)
        })
    }

    /// Tries at once instead of after the pause, and looks at vm.conf at once: the network came
    /// up, the VM was heard of, or a person asked for it.
    pub fn kick(&self) {
        self.look.notify_one();
        self.kick.notify_one();
    }

    /// Changes the grace time that the VM is told, in seconds.
    pub fn set_grace(&self, seconds: u16) {
        self.grace.store(seconds, Ordering::Relaxed);
        let mut hello = self.hello.clone();
        hello.grace_seconds = seconds;
        // With a full queue the next session tells it.
        let _ = self.requests.try_send(Request::Hello(hello));
    }

    /// Ends the session, its helper and the link. Returns within two seconds.
    pub async fn close(self) {
        self.closing.send_replace(true);
        if timeout(CLOSE_DEADLINE, self.requests.closed())
            .await
            .is_err()
        {
            tracing::warn!("the link did not end in time");
        }
    }
}

/// The link's task.
#[derive(Debug)]
pub struct Link {
    config: Config,
    masters: Masters,
    pins: Pins,
    grace: Arc<AtomicU16>,
    events: mpsc::Sender<Event>,
    kick: Arc<Notify>,
    live: Option<Live>,
    /// Addresses that were reported last.
    resolved: Vec<IpAddr>,
    /// Whether the last attempt met an SSH server.
    met: bool,
}

/// A session that is up.
#[derive(Debug)]
struct Live {
    context: Context,
    conversation: Conversation<ChildStdout, ChildStdin>,
    rest: Rest,
}

impl Link {
    /// Starts the link. Without a vm.conf it idles until there is one.
    #[must_use]
    pub fn spawn(config: Config) -> (LinkHandle, mpsc::Receiver<Event>) {
        let (requests, request_queue) = mpsc::channel(REQUEST_QUEUE);
        let (events, event_queue) = mpsc::channel(EVENT_QUEUE);
        let (closing, closed) = watch::channel(false);
        let handle = LinkHandle {
            requests,
            kick: Arc::default(),
            look: Arc::default(),
            closing,
            grace: Arc::new(AtomicU16::new(config.hello.grace_seconds)),
            hello: config.hello.clone(),
        };
        let record = conf::follow(config.vm_conf.clone(), Arc::clone(&handle.look));
        let link = Self {
            masters: Masters::new(config.control_dir.clone()),
            pins: Pins::new(&config.ssh_dir),
            grace: Arc::clone(&handle.grace),
            events,
            kick: Arc::clone(&handle.kick),
            live: None,
            resolved: Vec::new(),
            met: false,
            config,
        };
        tokio::spawn(link.run(request_queue, record, closed));
        (handle, event_queue)
    }

    async fn run(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        mut record: watch::Receiver<Record>,
        mut closed: watch::Receiver<bool>,
    ) {
        let events = self.events.clone();
        loop {
            let now = record.borrow_and_update().clone();
            tokio::select! {
                // An error means that no handle is left.
                _ = closed.wait_for(|closing| *closing) => break,
                () = events.closed() => break,
                Ok(()) = record.changed() => {}
                () = self.follow(now, &mut requests) => {}
            }
            self.drop_session("the pairing was changed").await;
        }
        self.live = None;
        self.masters.end_all().await;
    }

    /// Does what a record asks for, until another one comes.
    async fn follow(&mut self, record: Record, requests: &mut mpsc::Receiver<Request>) {
        self.masters.end_all().await;
        self.resolved.clear();
        match record {
            Ok(Some(pairing)) => {
                self.emit(Event::Paired(Some(pairing.clone()))).await;
                self.keep(&pairing, requests).await;
            }
            Ok(None) => {
                self.emit(Event::Paired(None)).await;
                // Now, so that the portal can show it for pairing.
                if let Err(failure) = self.key().await {
                    self.emit(Event::Down(failure)).await;
                }
                refuse(requests, &self.events).await;
            }
            Err(error) => {
                let down = failure(FailureKind::Config, chain(&*error), error.remedy());
                self.emit(Event::Down(down)).await;
                refuse(requests, &self.events).await;
            }
        }
    }

    /// Opens sessions with a VM, one after the other, for ever.
    async fn keep(&mut self, pairing: &Pairing, requests: &mut mpsc::Receiver<Request>) {
        let events = self.events.clone();
        let mut failures = 0;
        let mut eager_since = Instant::now();
        loop {
            let began = Instant::now();
            let attempt = tokio::select! {
                result = self.attempt(pairing) => result,
                () = refuse(requests, &events) => continue,
            };
            let down = match attempt {
                Ok(()) => {
                    let up = Instant::now();
                    let down = self.converse(requests).await;
                    if up.elapsed() >= PROVEN {
                        failures = 0;
                        eager_since = Instant::now();
                    } else {
                        failures += 1;
                    }
                    down
                }
                Err(failure) => {
                    failures += 1;
                    failure
                }
            };
            // The manager logs it when it differs from the one before.
            tracing::debug!(kind = ?down.kind, message = down.message, "no session with the VM");
            let pause = pause(down.kind, self.met, failures, eager_since.elapsed() < EAGER);
            self.emit(Event::Down(down)).await;
            self.masters.end_all().await;
            tokio::select! {
                () = sleep_until(began + pause) => {}
                () = self.kick.notified() => {
                    eager_since = Instant::now();
                    failures = 0;
                    sleep_until(began + CLOSEST).await;
                }
                () = refuse(requests, &events) => {}
            }
        }
    }

    async fn attempt(&mut self, pairing: &Pairing) -> Result<(), Failure> {
        let mut context = Context {
            pairing: pairing.clone(),
            authorized_keys_line: String::new(),
            pinned: Vec::new(),
        };
        self.met = false;
        let addresses = session::resolve(&context, &self.config).await?;
        let ips = session::ips(&addresses);
        if self.resolved != ips {
            self.resolved.clone_from(&ips);
            self.emit(Event::Resolved(ips)).await;
        }
        let key = self.key().await?;
        context.authorized_keys_line = key.authorized_keys_line();
        context.pinned = self.pins.fingerprints().map_err(|error| {
            let remedy = "pair the VM again in the portal";
            failure(FailureKind::HostKeyUnknown, chain(&error), remedy)
        })?;
        if context.pinned.is_empty() {
            return Err(context.host_key_unknown());
        }
        let address = session::reach(&context, &addresses).await?;
        self.met = true;
        let mut hello = self.config.hello.clone();
        hello.grace_seconds = self.grace.load(Ordering::Relaxed);
        let known_hosts = self.pins.path();
        let Session {
            hello,
            lines,
            stdin,
            rest,
        } = session::open(
            &context,
            &self.masters,
            address,
            &key.path,
            known_hosts,
            hello,
        )
        .await?;
        tracing::info!(host = pairing.host, %address, version = hello.version, "session with the VM");
        self.live = Some(Live {
            context,
            conversation: Conversation::new(lines, stdin),
            rest,
        });
        let address = address.ip().to_canonical();
        self.emit(Event::Up { hello, address }).await;
        Ok(())
    }

    /// Talks until the session is lost; why it was.
    async fn converse(&mut self, requests: &mut mpsc::Receiver<Request>) -> Failure {
        let Some(live) = &mut self.live else {
            return failure(FailureKind::Lost, "there is no session", "");
        };
        let end = live.conversation.run(requests, &self.events).await;
        let why = end.why();
        live.conversation.fail_pending(&why, &self.events).await;
        let Some(Live { context, rest, .. }) = self.live.take() else {
            return failure(FailureKind::Lost, why, "");
        };
        let said = rest.last_words().await;
        let why = if said.is_empty() {
            why
        } else {
            format!("{why} ({said})")
        };
        context.lost(&why)
    }

    /// Ends a session that is up, because it is no longer wanted.
    async fn drop_session(&mut self, why: &str) {
        if let Some(mut live) = self.live.take() {
            live.conversation.fail_pending(why, &self.events).await;
            self.emit(Event::Down(live.context.lost(why))).await;
        }
    }

    async fn key(&self) -> Result<Key, Failure> {
        Key::ensure(&self.config.ssh_dir).await.map_err(|error| {
            let dir = self.config.ssh_dir.display();
            let remedy = format!(
                "see that {dir} can be written; a damaged key there has to be removed by hand, and the new one brought to the VM"
            );
            failure(FailureKind::Key, chain(&error), remedy)
        })
    }

    async fn emit(&self, event: Event) {
        // Nobody listens only while the process ends; then so does the link.
        let _ = self.events.send(event).await;
    }
}

/// How long to wait between the beginnings of two attempts.
fn pause(kind: FailureKind, met: bool, failures: u32, eager: bool) -> Duration {
    // OpenSSH's PerSourcePenalties (since 9.8) shuts out an address that fails to log in every few
    // seconds, or that often leaves without having logged in.
    let least = Duration::from_secs(match kind {
        FailureKind::Login => 8,
        FailureKind::HostKeyChanged | FailureKind::Helper | FailureKind::Sudo => 4,
        FailureKind::Unreachable if met => 2,
        _ => 0,
    });
    let pause = match failures {
        0 => Duration::ZERO,
        1 => Duration::from_millis(250),
        2 => Duration::from_millis(500),
        _ if eager => Duration::from_secs(1),
        _ => {
            // So that several appliances do not come in step after a power cut.
            let chance = RandomState::new().build_hasher().finish() % 4000;
            Duration::from_millis(6000 + chance)
        }
    };
    pause.max(least)
}
