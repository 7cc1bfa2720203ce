//! Shell commands in the guest.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::Reply;

/// Output kept per stream; more is read and dropped.
const KEEP: usize = 8 << 20;
/// How long output is still read after the command's end, when a child of it keeps the pipe open.
const AFTER_END: Duration = Duration::from_millis(500);

/// Runs `command` and waits for it, at most `limit`.
pub(super) fn run(command: &str, limit: Duration) -> io::Result<Reply> {
    let begin = Instant::now();
    let mut child = shell(command)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);

    let (ended, end) = mpsc::sync_channel(1);
    let waiter = thread::spawn(move || {
        let status = child.wait();
        let _ = ended.send(());
        status
    });
    let timed_out = end.recv_timeout(limit).is_err();
    if timed_out && let Some(group) = group {
        // It may have ended just now; then there is nothing to kill.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let status = waiter
        .join()
        .map_err(|_| io::Error::other("the waiting thread ended early"))??;
    Ok(Reply::Shell {
        code: status
            .code()
            .or(status.signal().filter(|_| !timed_out).map(|n| 128 + n)),
        stdout: stdout.as_ref().map(finish).unwrap_or_default(),
        stderr: stderr.as_ref().map(finish).unwrap_or_default(),
        timed_out,
        seconds: begin.elapsed().as_secs_f64(),
    })
}

/// Starts `command` and leaves it running.
pub(super) fn start(command: &str, log: Option<&str>) -> io::Result<Reply> {
    let mut shell = shell(command);
    if let Some(path) = log {
        let file = File::create(path)?;
        shell.stdout(file.try_clone()?).stderr(file);
    } else {
        shell.stdout(Stdio::null()).stderr(Stdio::null());
    }
    let mut child = shell.spawn()?;
    let pid = child.id();
    thread::spawn(move || child.wait());
    Ok(Reply::Started(pid))
}

/// In a process group of its own, so that all of it can be killed.
fn shell(command: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        .process_group(0);
    shell
}

struct Collected {
    data: Arc<Mutex<Vec<u8>>>,
    end: mpsc::Receiver<()>,
}

fn collect(mut pipe: impl Read + Send + 'static) -> Collected {
    let data = Arc::new(Mutex::new(Vec::new()));
    let (ended, end) = mpsc::sync_channel(1);
    let sink = Arc::clone(&data);
    thread::spawn(move || {
        let mut block = vec![0; 65536];
        while let Ok(n @ 1..) = pipe.read(&mut block) {
            let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
            let room = KEEP.saturating_sub(sink.len());
            sink.extend_from_slice(&block[..n.min(room)]);
        }
        let _ = ended.send(());
    });
    Collected { data, end }
}

fn finish(collected: &Collected) -> String {
    let _ = collected.end.recv_timeout(AFTER_END);
    let data = collected
        .data
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&data).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(command: &str, limit: Duration) -> (Option<i32>, String, String, bool, f64) {
        match run(command, limit).unwrap() {
            Reply::Shell {
                code,
                stdout,
                stderr,
                timed_out,
                seconds,
            } => (code, stdout, stderr, timed_out, seconds),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn output_and_exit_code_come_back() {
        let (code, out, err, timed_out, _) =
            shell("echo out; echo err >&2; exit 3", Duration::from_secs(10));
        assert_eq!(
            (code, out.as_str(), err.as_str(), timed_out),
            (Some(3), "out\n", "err\n", false)
        );
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_its_children() {
        let (code, out, _, timed_out, seconds) =
            shell("echo begun; sleep 60 | cat", Duration::from_millis(300));
        assert_eq!((code, out.as_str(), timed_out), (None, "begun\n", true));
        assert!(seconds < 30.0, "took {seconds} s");
    }

    #[test]
    fn a_child_that_keeps_the_pipe_open_does_not_hold_up_the_reply() {
        let (code, out, _, _, seconds) = shell("echo begun; sleep 20 &", Duration::from_secs(15));
        assert_eq!((code, out.as_str()), (Some(0), "begun\n"));
        assert!(seconds < 15.0, "took {seconds} s");
    }
}
