//! Other programs, each with a time limit.

use std::{
    io::Read,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use crate::{failure::Error, wait};

/// Where system programs are, whatever the caller's PATH says.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// The most bytes taken from a program.
const MOST: u64 = 256 * 1024;

/// What a program said.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) success: bool,
    pub(crate) timed_out: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Run to the end or to the limit, when it is killed.
pub(crate) fn output(mut command: Command, limit: Duration) -> Result<Output, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |source| Error::Run {
        program: program.clone(),
        source,
    };
    let mut child: Child = command
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let readers = (collect(child.stdout.take()), collect(child.stderr.take()));
    let ended = wait::until(limit, || child.try_wait()).map_err(failed)?;
    if ended.is_none() {
        // Already ended is as good as killed.
        let _ = child.kill();
        let _ = child.wait();
        // Its children may hold the pipes: what they say is of no interest.
        return Ok(Output {
            timed_out: true,
            ..Output::default()
        });
    }
    Ok(Output {
        success: ended.is_some_and(|status| status.success()),
        timed_out: false,
        stdout: readers.0.join().unwrap_or_default(),
        stderr: readers.1.join().unwrap_or_default(),
    })
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // A broken pipe ends the text, which is all there is then.
            let _ = pipe.take(MOST).read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn what_a_program_says_comes_back_and_a_stuck_one_is_ended() {
        let mut echo = Command::new("echo");
        echo.arg("hello");
        let said = output(echo, Duration::from_secs(10)).unwrap();
        assert!(said.success && said.stdout == "hello\n");
        let mut sleep = Command::new("sleep");
        sleep.arg("600");
        let start = Instant::now();
        assert!(output(sleep, Duration::from_millis(50)).unwrap().timed_out);
        assert!(start.elapsed() < Duration::from_mins(1));
    }
}
