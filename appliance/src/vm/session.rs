//! One session: from a host name to a helper that has exchanged greetings.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use openssh::{
    Child, ChildStderr, ChildStdin, ChildStdout, Error as SshError, Session as Ssh, Stdio,
};
use protocol::line::{Answer, PiHello, Reply, Request, VmHello};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    task::JoinHandle,
    time::timeout,
};

use super::{
    conversation::shown,
    discovery::resolve::is_local,
    event::Failure,
    failure::{Context, Ended, last_line},
    lines::{Line, Lines},
    link::Config,
    master::{Destination, Master, Masters},
};

/// How long the resolver may take.
const NAME_DEADLINE: Duration = Duration::from_secs(5);
/// How long an address may take to accept a connection: one lost SYN is repeated after a second.
const REACH_DEADLINE: Duration = Duration::from_secs(2);
/// How many addresses of a name are tried.
const MAX_ADDRESSES: usize = 8;
/// How long the helper may take to greet, and to answer our greeting.
const GREETING_DEADLINE: Duration = Duration::from_secs(10);
/// How many foreign lines may come before the greeting: a shell's start-up file may print some.
const MAX_PREAMBLE: usize = 64;
/// What is run on the VM. A key with a forced command gets this as SSH_ORIGINAL_COMMAND.
const COMMAND: &str = "usb-event-handler session";
/// How much of the helper's stderr is kept, in bytes; the rest is read and dropped.
const MAX_STDERR: usize = 4096;

/// A session that is up.
#[derive(Debug)]
pub(super) struct Session {
    pub hello: VmHello,
    pub lines: Lines<ChildStdout>,
    pub stdin: ChildStdin,
    pub rest: Rest,
}

/// What only matters at the session's end.
#[derive(Debug)]
pub(super) struct Rest {
    master: Master,
    child: Child<Arc<Ssh>>,
    stderr: JoinHandle<String>,
}

impl Rest {
    /// What ssh or the helper said at the end; empty when they said nothing.
    pub async fn last_words(mut self) -> String {
        let said = timeout(Duration::from_millis(200), &mut self.stderr).await;
        self.stderr.abort();
        let log = self.master.log();
        drop(self.child);
        match said {
            Ok(Ok(said)) if !last_line(&said).is_empty() => last_line(&said).to_owned(),
            _ => last_line(&log).to_owned(),
        }
    }
}

/// The addresses of a host name, in the resolver's order.
pub(super) async fn resolve(
    context: &Context,
    config: &Config,
) -> Result<Vec<SocketAddr>, Failure> {
    let (host, port) = (context.pairing.host.as_str(), config.port);
    let found = config.discovery.resolve(host).await;
    if !found.is_empty() {
        let found = found.into_iter().take(MAX_ADDRESSES);
        return Ok(found.map(|ip| SocketAddr::new(ip, port)).collect());
    }
    let found = match timeout(NAME_DEADLINE, lookup_host((host, port))).await {
        Err(_) => return Err(context.no_address("the name server does not answer")),
        Ok(Err(_)) if is_local(host) => {
            return Err(context.no_address("no machine on the local network answers to it"));
        }
        Ok(Err(error)) => return Err(context.no_address(&error.to_string())),
        Ok(Ok(found)) => found,
    };
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found.take(MAX_ADDRESSES) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(context.no_address("the name server knows none"));
    }
    Ok(addresses)
}

/// The first of the addresses that accepts a connection. The connection is not used: this is to
/// know in a second or two, and without starting ssh, that a machine is down, and why.
pub(super) async fn reach(
    context: &Context,
    addresses: &[SocketAddr],
) -> Result<SocketAddr, Failure> {
    let mut failure = context.no_address("the name server knows none");
    for address in addresses {
        let tried = timeout(REACH_DEADLINE, TcpStream::connect(address)).await;
        match tried.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(_) => return Ok(*address),
            Err(error) => {
                let ip = address.ip().to_string();
                failure = context.unreachable(&ip, address.port(), &error);
            }
        }
    }
    Err(failure)
}

/// Logs in at an address and exchanges greetings with the helper.
pub(super) async fn open(
    context: &Context,
    masters: &Masters,
    address: SocketAddr,
    key: &std::path::Path,
    known_hosts: &std::path::Path,
    greeting: PiHello,
) -> Result<Session, Failure> {
    let destination = Destination {
        address: &address_text(&address),
        port: address.port(),
        user: &context.pairing.user,
        key,
        known_hosts,
    };
    let master = masters
        .open(&destination)
        .await
        .map_err(|said| context.ssh(&said))?;
    let started = timeout(GREETING_DEADLINE, start(&master)).await;
    let helper = match started {
        Ok(Ok(helper)) => helper,
        Ok(Err(error)) => return Err(context.lost(&super::failure::chain(&error))),
        Err(_) => return Err(context.lost("the SSH server opens no session")),
    };
    let (mut child, stdin, stdout, stderr) = helper;
    let mut stderr = tokio::spawn(collect(stderr));
    let mut talk = Greeter {
        context,
        lines: Lines::new(stdout),
        stdin,
    };
    match talk.greet(greeting).await {
        Ok(hello) => Ok(Session {
            hello,
            lines: talk.lines,
            stdin: talk.stdin,
            rest: Rest {
                master,
                child,
                stderr,
            },
        }),
        Err(Refusal::Said(failure)) => Err(failure),
        Err(Refusal::Ended(mut ended)) => {
            drop(talk);
            if ended == Ended::Exited {
                child.stdin().take();
                if let Ok(Err(SshError::Remote(_))) = timeout(GREETING_DEADLINE, child.wait()).await
                {
                    // The crate's word for exit status 127.
                    ended = Ended::NotFound;
                }
            }
            let said = timeout(Duration::from_millis(500), &mut stderr).await;
            stderr.abort();
            let said = said.ok().and_then(Result::ok).unwrap_or_default();
            Err(context.no_greeting(ended, &said))
        }
    }
}

type Helper = (Child<Arc<Ssh>>, ChildStdin, ChildStdout, ChildStderr);

async fn start(master: &Master) -> Result<Helper, SshError> {
    let mut command = Arc::clone(&master.session).arc_raw_command(COMMAND);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().await?;
    match (
        child.stdin().take(),
        child.stdout().take(),
        child.stderr().take(),
    ) {
        (Some(stdin), Some(stdout), Some(stderr)) => Ok((child, stdin, stdout, stderr)),
        _ => Err(SshError::Disconnected),
    }
}

/// Why there was no greeting.
enum Refusal {
    Said(Failure),
    Ended(Ended),
}

struct Greeter<'a> {
    context: &'a Context,
    lines: Lines<ChildStdout>,
    stdin: ChildStdin,
}

impl Greeter<'_> {
    async fn greet(&mut self, greeting: PiHello) -> Result<VmHello, Refusal> {
        let Answer::Hello(hello) = self.answer(None).await? else {
            return Err(Refusal::Ended(Ended::Babbling));
        };
        let request = Request::Hello(greeting).to_string();
        let line = format!("{request}\n");
        match timeout(GREETING_DEADLINE, self.stdin.write_all(line.as_bytes())).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Refusal::Ended(Ended::Exited)),
            Err(_) => return Err(Refusal::Ended(Ended::Silent)),
        }
        if let Answer::Welcome { cleared } = self.answer(Some(&request)).await?
            && !cleared.is_empty()
        {
            tracing::info!(?cleared, "the VM let go of devices of an earlier boot");
        }
        Ok(hello)
    }

    /// The answer to a request, or the greeting that answers none.
    async fn answer(&mut self, re: Option<&str>) -> Result<Answer, Refusal> {
        let within = timeout(GREETING_DEADLINE, self.find(re)).await;
        within.unwrap_or(Err(Refusal::Ended(Ended::Silent)))
    }

    async fn find(&mut self, re: Option<&str>) -> Result<Answer, Refusal> {
        for _ in 0..MAX_PREAMBLE {
            let text = match self.lines.next().await {
                Ok(Line::Text(text)) => text,
                Ok(Line::TooLong) => break,
                Ok(Line::End) | Err(_) => return Err(Refusal::Ended(Ended::Exited)),
            };
            match serde_json::from_str::<Reply>(&text) {
                Ok(Reply {
                    answer: Answer::Error(said),
                    ..
                }) => return Err(Refusal::Said(self.context.helper(&said))),
                Ok(reply) if reply.re.as_deref() == re => return Ok(reply.answer),
                _ => tracing::info!(line = %shown(&text), "line before the greeting ignored"),
            }
        }
        Err(Refusal::Ended(Ended::Babbling))
    }
}

/// Reads the helper's stderr to its end, so that it never blocks, and keeps the beginning, where
/// sudo and shells say why they refuse.
async fn collect(mut stderr: ChildStderr) -> String {
    let mut kept = Vec::new();
    let mut piece = [0; 1024];
    while let Ok(count) = stderr.read(&mut piece).await {
        if count == 0 {
            break;
        }
        tracing::debug!(said = %shown(&String::from_utf8_lossy(&piece[..count])), "helper's stderr");
        let room = MAX_STDERR.saturating_sub(kept.len());
        kept.extend_from_slice(&piece[..count.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// An address as ssh takes it, with the interface of a link-local one.
pub(super) fn address_text(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
        other => other.ip().to_string(),
    }
}

/// The plain addresses, as the manager compares them with those of importers.
pub(super) fn ips(addresses: &[SocketAddr]) -> Vec<IpAddr> {
    addresses
        .iter()
        .map(|address| address.ip().to_canonical())
        .collect()
}
