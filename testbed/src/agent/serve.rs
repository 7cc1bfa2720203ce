//! The guest's end: reads requests from the port, answers each from a thread of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};

use super::{Numbered, PORT, Reply, Request, kernel_log, shell, tty};

/// How long the port may take to appear after the start of the machine.
const PORT_WAIT: Duration = Duration::from_mins(1);

/// Serves the host until the machine goes down.
pub fn run() -> io::Result<()> {
    let path = find_port()?;
    let port = OpenOptions::new().read(true).write(true).open(path)?;
    let writer = Arc::new(Mutex::new(port.try_clone()?));
    let mut reader = BufReader::new(port);
    let mut line = String::new();
    loop {
        line.clear();
        match reader.read_line(&mut line) {
            // Nobody is connected on the host's side.
            Ok(0) => {
                thread::sleep(Duration::from_millis(20));
                continue;
            }
            Ok(_) => {}
            Err(err) if err.kind() == io::ErrorKind::InvalidData => continue,
            Err(err) => return Err(err),
        }
        // A line that is no request is the end of one whose beginning a broken connection lost.
        let Ok(Numbered { id, body }) = serde_json::from_str::<Numbered<Request>>(&line) else {
            continue;
        };
        let writer = Arc::clone(&writer);
        thread::spawn(move || {
            let body = answer(&body).unwrap_or_else(|err| Reply::Failed(err.to_string()));
            let Ok(mut out) = serde_json::to_vec(&Numbered { id, body }) else {
                return;
            };
            out.push(b'\n');
            // When the host has gone there is nobody to tell.
            let _ = writer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write_all(&out);
        });
    }
}

fn find_port() -> io::Result<PathBuf> {
    let end = Instant::now() + PORT_WAIT;
    loop {
        for entry in fs::read_dir("/sys/class/virtio-ports")
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            let node = PathBuf::from("/dev").join(entry.file_name());
            if name.trim() == PORT && node.exists() {
                return Ok(node);
            }
        }
        if Instant::now() > end {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "no virtio-serial port to the host",
            ));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn answer(request: &Request) -> io::Result<Reply> {
    Ok(match request {
        Request::Shell {
            command,
            timeout_ms,
        } => shell::run(command, Duration::from_millis(*timeout_ms))?,
        Request::Start { command, log } => shell::start(command, log.as_deref())?,
        Request::Put {
            path,
            mode,
            append,
            data,
        } => {
            let data = Base64::decode_vec(data).map_err(io::Error::other)?;
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .append(*append)
                .truncate(!*append)
                .open(path)?;
            file.write_all(&data)?;
            file.set_permissions(fs::Permissions::from_mode(*mode))?;
            Reply::Done
        }
        Request::Get {
            path,
            offset,
            limit,
        } => {
            let mut file = File::open(path)?;
            if *offset > 0 {
                file.seek(SeekFrom::Start(*offset))?;
            }
            let mut data = Vec::new();
            file.take(*limit).read_to_end(&mut data)?;
            Reply::Data(Base64::encode_string(&data))
        }
        Request::Sync { token } => Reply::Mark(kernel_log::mark(token)?),
        Request::KernelLog { since_us } => Reply::KernelLog(kernel_log::read(*since_us)?),
        Request::AwaitLog {
            since_us,
            text,
            count,
            timeout_ms,
        } => {
            let limit = Duration::from_millis(*timeout_ms);
            Reply::Mark(kernel_log::wait(*since_us, text, *count, limit)?)
        }
        Request::OpenTty { tty, path, baud } => {
            tty::open(*tty, path, *baud)?;
            Reply::Done
        }
        Request::CloseTty { tty } => {
            tty::close(*tty)?;
            Reply::Done
        }
        Request::Transfer { tty, transfer } => Reply::Transferred(tty::transfer(*tty, transfer)?),
        Request::RoundTrips { tty, size, rounds } => {
            Reply::RoundTrips(tty::round_trips(*tty, *size, *rounds)?)
        }
        Request::Lines { tty, steps } => {
            tty::lines(*tty, steps)?;
            Reply::Done
        }
    })
}
