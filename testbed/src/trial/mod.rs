//! Trials of the product on the two machines: named scenarios, run in order on one pair that is booted once.
//!
//! - this module: runs scenarios and reports each as `cargo test` does
//! - [`Bed`]: the paired machines with the product on them, and how a scenario starts and is explained
//! - [`artefact`]: what the product's build left for them
//! - [`fresh_vm`]: a VM that has nothing of ours, and a person with a shell on it
//! - `serial`: devices that are plugged in, their ttys, bytes through them
//! - `portal`: what the Pi itself says

pub mod artefact;
mod bed;
pub mod fresh_vm;
mod portal;
mod serial;

use std::any::Any;
use std::error::Error as StdError;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

pub use bed::{Bed, Undo};
pub use portal::{Answer, PASSWORD};
pub use serial::{Passed, Plug};

use crate::machine::CEILING;
use crate::{machine, pair};

/// Why a trial cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The product has not been built.
    #[error("failed to find {what} at {path}: run tools/build, or name it in {variable}")]
    Missing {
        /// The appliance or the package.
        what: &'static str,
        /// Where it was looked for.
        path: String,
        /// The environment variable that overrides the place.
        variable: &'static str,
    },
    /// The pair did not start.
    #[error("failed to start the machines")]
    Pair(#[from] pair::Error),
    /// One of the machines.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// A state did not come.
    #[error("failed to see {what} within {limit:?}; last: {last}")]
    Never {
        /// The state.
        what: String,
        /// How long was waited.
        limit: Duration,
        /// How it stood at the end.
        last: String,
    },
    /// The helper's or the portal's answer is not what it should be.
    #[error("failed to understand {what}: {answer}")]
    Answer {
        /// Whose answer.
        what: &'static str,
        /// The answer.
        answer: String,
    },
    /// The portal could not be asked.
    #[error("failed to ask the portal for {path}")]
    Portal {
        /// Path of the page.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// Bytes were lost or changed on their way.
    #[error("failed to pass bytes over {node}: {why}")]
    Bytes {
        /// The tty.
        node: String,
        /// How they differ, or why they stopped.
        why: String,
    },
}

/// What a scenario ends with. It may also panic, as assertions do.
pub type Outcome = Result<(), Box<dyn StdError>>;

/// A scenario: a name that says what holds, and the acts that show it.
pub type Scenario = (&'static str, fn(&Bed) -> Outcome);

/// The main function of a test binary: runs the scenarios that the command line's filters select, in order and one
/// at a time. The machines are started with the first and stopped after the last.
#[must_use]
pub fn run(scenarios: &[Scenario]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // There is one pair of machines.
    arguments.test_threads = Some(1);
    let machines = Arc::new(Mutex::new(None));
    let trials = scenarios
        .iter()
        .map(|&(name, scenario)| {
            let machines = Arc::clone(&machines);
            Trial::test(name, move || stage(&machines, name, scenario))
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Stops the machines: the process may end without running destructors.
    drop(machines);
    conclusion.exit_code()
}

fn stage(
    machines: &Mutex<Option<Bed>>,
    name: &str,
    scenario: fn(&Bed) -> Outcome,
) -> Result<(), Failed> {
    let mut machines = machines.lock().unwrap_or_else(PoisonError::into_inner);
    let bed = match machines.take() {
        // What an earlier scenario broke beyond repair is replaced.
        Some(bed) => match bed.tidy() {
            Ok(()) => bed,
            Err(error) => {
                eprintln!(
                    "new machines, since the old ones are in disorder: {}",
                    chain(&error)
                );
                eprintln!("{}", bed.explain());
                drop(bed);
                Bed::start().map_err(|error| chain(&error))?
            }
        },
        None => Bed::start().map_err(|error| chain(&error))?,
    };
    let bed = machines.insert(bed);
    let begin = Instant::now();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| scenario(bed)));
    eprintln!("{name}: {:.1} s", begin.elapsed().as_secs_f64());
    let why = match outcome {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => chain(&*error),
        Err(panic) => said(&*panic),
    };
    // Again at the end: a long output is often cut in its middle.
    Err(format!("{why}\n{}\n{name}: {why}", bed.explain()).into())
}

/// An error with its causes.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

fn said(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "panicked".to_owned())
}

/// Tries `probe` until it succeeds, at most [`CEILING`]. A probe that has not succeeded says how it stands.
pub fn wait_until<T>(what: &str, probe: impl FnMut() -> Result<T, String>) -> Result<T, Error> {
    wait_until_within(what, CEILING, probe)
}

/// As [`wait_until`] with another limit.
pub fn wait_until_within<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<T, String>,
) -> Result<T, Error> {
    let end = Instant::now() + limit;
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(last) if Instant::now() > end => {
                return Err(Error::Never {
                    what: what.to_owned(),
                    limit,
                    last,
                });
            }
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}
