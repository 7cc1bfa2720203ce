//! The checks, each of which needs those before it.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use protocol::line::{self, Answer, CheckState, NOT_LET_IN_CHECK, Reply, VERSION_CHECK};
use tokio::net::UdpSocket;

use super::{
    super::{
        Config, FailureKind, PublicKey, conf,
        event::Failure,
        failure::{Context, Ended, chain},
        host_key::{self, Pins},
        key::Key,
        session,
        visit::{Login, Trusted, Visit, Visited},
    },
    Finding, Progress, SHOW_FINGERPRINTS, Trust,
    words::{is_older, title},
};

/// How long the login and the helper's checks may take together; those ask the package index and the
/// network.
const VISIT_DEADLINE: Duration = Duration::from_secs(50);
/// What is run on the VM. A key with a forced command gets this as SSH_ORIGINAL_COMMAND.
const COMMAND: &str = "usb-event-handler check";
/// A check failed, and those after it need it.
struct Stop;

pub(super) async fn examine(config: &Config, progress: &mut Progress) {
    // What stopped it is in the report.
    let _ = Examination { config, progress }.all().await;
}

struct Examination<'a> {
    config: &'a Config,
    progress: &'a mut Progress,
}

impl Examination<'_> {
    async fn all(&mut self) -> Result<(), Stop> {
        let key = self.key().await?;
        let mut context = Context {
            pairing: self.progress.report.target.clone(),
            authorized_keys_line: key.authorized_keys_line(),
            pinned: Vec::new(),
        };
        let addresses = self.name(&context).await?;
        let address = self.port(&context, &addresses).await?;
        let trusted = self.host_key(&mut context, &address).await?;
        let visited = self.login(&context, &address, &key, &trusted).await?;
        let own = own_address(&address).await;
        self.helper(&context, visited, own)
    }

    async fn key(&mut self) -> Result<Key, Stop> {
        self.progress.begin("key", "The Pi’s key");
        match Key::ensure(&self.config.ssh_dir).await {
            Ok(key) => {
                let sentence = format!("the Pi has its key, {}", key.fingerprint());
                self.progress.finish(|finding| finding.ok(sentence));
                Ok(key)
            }
            Err(error) => {
                let dir = self.config.ssh_dir.display();
                let remedy = format!(
                    "see that {dir} can be written; a damaged key there has to be removed by hand, and the new one brought to the VM"
                );
                self.stop(chain(&error), Some(remedy))
            }
        }
    }

    async fn name(&mut self, context: &Context) -> Result<Vec<SocketAddr>, Stop> {
        self.progress.begin("name", "Name");
        let host = &context.pairing.host;
        match session::resolve(context, self.config).await {
            Ok(addresses) => {
                let list: Vec<_> = addresses
                    .iter()
                    .map(|address| address.ip().to_string())
                    .collect();
                let sentence = if host.parse::<IpAddr>().is_ok() {
                    format!("{host} is an address and needs no name server")
                } else {
                    format!("{host} stands for {}", list.join(", "))
                };
                self.progress.finish(|finding| finding.ok(sentence));
                Ok(addresses)
            }
            Err(failure) => self.stop(failure.message, failure.remedy),
        }
    }

    async fn port(
        &mut self,
        context: &Context,
        addresses: &[SocketAddr],
    ) -> Result<SocketAddr, Stop> {
        self.progress.begin("ssh", "SSH server");
        match session::reach(context, addresses).await {
            Ok(address) => {
                let sentence = format!("{} answers on port {}", address.ip(), address.port());
                self.progress.finish(|finding| finding.ok(sentence));
                Ok(address)
            }
            Err(failure) => {
                let refused = failure.message.contains("refuses");
                self.progress.finish(|finding| {
                    let finding = finding.failed(failure.message).remedy(failure.remedy);
                    if refused {
                        finding.command(
                            "sudo apt install openssh-server && sudo systemctl enable --now ssh",
                        )
                    } else {
                        finding
                    }
                });
                Err(Stop)
            }
        }
    }

    /// The host keys to trust during this examination.
    async fn host_key(
        &mut self,
        context: &mut Context,
        address: &SocketAddr,
    ) -> Result<Trusted, Stop> {
        self.progress.begin("host_key", "Host key");
        let host = &context.pairing.host;
        let pins = Pins::new(&self.config.ssh_dir);
        let (pinned, record) = match (pins.keys(), conf::read(&self.config.vm_conf)) {
            (Ok(pinned), record) => (pinned, record.ok().flatten()),
            (Err(error), _) => return self.stop(chain(&error), None),
        };
        let at = session::address_text(address);
        let shown = match host_key::scan(&at, address.port()).await {
            Ok(shown) => shown,
            Err(error) => {
                let remedy =
                    "look at the VM: journalctl -u ssh says why its SSH server answers nothing";
                return self.stop(chain(&error), Some(remedy.to_owned()));
            }
        };
        let known: Vec<PublicKey> = shown
            .iter()
            .filter(|key| pinned.contains(key))
            .cloned()
            .collect();
        let paired_here = record.as_ref().is_some_and(|record| record.host == *host);
        let fingerprints = |keys: &[PublicKey]| {
            let list: Vec<_> = keys.iter().map(PublicKey::fingerprint).collect();
            list.join(" or ")
        };
        context.pinned = pinned.iter().map(PublicKey::fingerprint).collect();
        if !known.is_empty() {
            let sentence = if paired_here {
                format!("it is the pinned one, {}", fingerprints(&known))
            } else {
                format!(
                    "it is that of the paired VM, {}: this is the same machine",
                    fingerprints(&known)
                )
            };
            self.progress.report.shown.clone_from(&known);
            self.progress.report.trust = Trust::Pinned;
            self.progress.finish(|finding| finding.ok(sentence));
            return self.trust(&known);
        }
        self.progress.report.shown.clone_from(&shown);
        if paired_here && !pinned.is_empty() {
            self.progress.report.trust = Trust::Alarm;
            let sentence = format!(
                "ALARM: {host} shows {}, pinned is {}",
                fingerprints(&shown),
                fingerprints(&pinned)
            );
            let remedy = "if the VM was reinstalled, compare the new fingerprint with the VM’s own and set up the pairing again; if it was not, find out who answers at its address";
            self.progress.finish(|finding| {
                finding
                    .failed(sentence)
                    .remedy(Some(remedy.to_owned()))
                    .command(SHOW_FINGERPRINTS)
            });
            return Err(Stop);
        }
        let sentence = format!(
            "nobody has confirmed it yet; {host} shows {}",
            fingerprints(&shown)
        );
        let remedy = "compare it with the VM’s own";
        self.progress.finish(|finding| {
            finding
                .warning(sentence)
                .remedy(Some(remedy.to_owned()))
                .command(SHOW_FINGERPRINTS)
        });
        self.trust(&shown)
    }

    fn trust(&mut self, keys: &[PublicKey]) -> Result<Trusted, Stop> {
        Trusted::new(&self.config.control_dir, keys).or_else(|error| {
            self.progress.begin("login", "Login");
            let dir = self.config.control_dir.display();
            self.stop(format!("failed to write below {dir}: {error}"), None)
        })
    }

    /// Logs in and has the helper look.
    async fn login(
        &mut self,
        context: &Context,
        address: &SocketAddr,
        key: &Key,
        trusted: &Trusted,
    ) -> Result<Result<Vec<line::Check>, Failure>, Stop> {
        self.progress.begin("login", "Login");
        let user = &context.pairing.user;
        let visit = Visit {
            address,
            user,
            known_hosts: trusted.path(),
            login: Login::Key(&key.path),
        };
        match visit.run(COMMAND, b"", VISIT_DEADLINE).await {
            Visited::NoLogin(said) => {
                let failure = context.ssh(&said);
                let refused = failure.kind == FailureKind::Login;
                self.progress.report.key_refused = refused;
                let remedy = if refused {
                    Some(format!(
                        "run this on the VM as {user}, or let the Pi do it with the password of {user}, below"
                    ))
                } else {
                    failure.remedy
                };
                self.progress.finish(|finding| {
                    let finding = finding.failed(failure.message).remedy(remedy);
                    if refused {
                        finding.command(key.install_command())
                    } else {
                        finding
                    }
                });
                Err(Stop)
            }
            Visited::Ran {
                status,
                stdout,
                stderr,
            } => {
                let sentence = format!("the VM lets the Pi in as {user}");
                self.progress.finish(|finding| finding.ok(sentence));
                Ok(checks(context, status, &stdout, &stderr))
            }
        }
    }

    /// What the helper found; that it could look is a finding, too.
    fn helper(
        &mut self,
        context: &Context,
        found: Result<Vec<line::Check>, Failure>,
        own: Option<IpAddr>,
    ) -> Result<(), Stop> {
        self.progress.begin("helper", "vm-helper");
        let checks = match found {
            Ok(checks) => checks,
            Err(failure) if failure.kind == FailureKind::Sudo => {
                self.progress
                    .finish(|finding| finding.ok("it is installed"));
                self.progress.begin("root", title("root"));
                let user = &context.pairing.user;
                self.progress.finish(|finding| {
                    finding
                        .failed(failure.message)
                        .remedy(failure.remedy)
                        .command(format!("sudo usermod -aG usbip {user}"))
                });
                return Err(Stop);
            }
            Err(failure) => return self.stop(failure.message, failure.remedy),
        };
        let version = checks
            .iter()
            .find(|check| check.id == VERSION_CHECK)
            .and_then(|check| check.finding.strip_prefix("vm-helper "));
        let ours = &self.config.hello.version;
        self.progress.finish(|finding| match version {
            Some(version) if is_older(version, ours) => finding
                .warning(format!("vm-helper {version} is older than the Pi’s {ours}; they still understand each other"))
                .remedy(Some("install the package from the page Downloads".to_owned())),
            Some(version) => finding.ok(format!("vm-helper {version} is installed")),
            None => finding.ok("it is installed"),
        });
        let paired = conf::read(&self.config.vm_conf)
            .ok()
            .flatten()
            .is_some_and(|record| record.host == context.pairing.host);
        for check in checks.into_iter().filter(|check| check.id != VERSION_CHECK) {
            let finding = told(check, context, own, paired);
            self.progress.report.findings.push(finding);
        }
        self.progress.publish();
        Ok(())
    }

    fn stop<T>(&mut self, sentence: String, remedy: Option<String>) -> Result<T, Stop> {
        self.progress
            .finish(|finding| finding.failed(sentence).remedy(remedy));
        Err(Stop)
    }
}

/// A finding of the helper, with what the Pi knows better.
fn told(check: line::Check, context: &Context, own: Option<IpAddr>, paired: bool) -> Finding {
    let line::Check {
        id,
        state,
        finding,
        remedy,
        command,
    } = check;
    let name_the_pi =
        own.map(|own| format!("echo 'DEFAULT_PI_HOST={own}' | sudo tee -a /etc/usbip/pi.conf"));
    if id == NOT_LET_IN_CHECK && !paired {
        return Finding::running("pi", title("pi"))
            .ok("the VM reaches the Pi on port 3240, which lets it in once it is paired");
    }
    let (id, command) = match id.as_str() {
        NOT_LET_IN_CHECK | "pi" => ("pi".to_owned(), name_the_pi),
        "pi_conf" => (id, name_the_pi),
        "root" => {
            let user = &context.pairing.user;
            (id, Some(format!("sudo usermod -aG usbip {user}")))
        }
        _ => (id, command),
    };
    let blank = Finding::running(&id, title(&id));
    match state {
        CheckState::Ok => blank.ok(finding),
        CheckState::Warning => Finding {
            command,
            ..blank.warning(finding).remedy(remedy)
        },
        CheckState::Failed => Finding {
            command,
            ..blank.failed(finding).remedy(remedy)
        },
    }
}

/// The helper's checks in what it wrote, or why there are none.
fn checks(
    context: &Context,
    status: Option<i32>,
    stdout: &str,
    stderr: &str,
) -> Result<Vec<line::Check>, Failure> {
    for text in stdout.lines() {
        match serde_json::from_str::<Reply>(text).map(|reply| reply.answer) {
            Ok(Answer::Checks(checks)) => return Ok(checks),
            Ok(Answer::Error(said)) => return Err(context.helper(&said)),
            // A shell's start-up file may print something.
            _ => {}
        }
    }
    let ended = match status {
        Some(127) => Ended::NotFound,
        _ => Ended::Exited,
    };
    Err(context.no_greeting(ended, stderr))
}

/// The address from which the Pi reaches the VM, which is where the VM reaches the Pi.
async fn own_address(to: &SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if to.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0; 16], 0).into()
    };
    // Nothing is sent: the kernel only looks for the way.
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(to).await.ok()?;
    Some(socket.local_addr().ok()?.ip().to_canonical())
}
