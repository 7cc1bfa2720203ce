//! Threads for the requests of a session. One waits for the next one: a plug has no time for starting
//! a thread. A second would wake with it, to wait in its place.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
};

use crate::failure::Error;

/// Threads that wait; more end when they are done.
const SPARE: usize = 1;
/// Bytes of stack; the default is eight times as much.
const STACK: usize = 256 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// The threads. They end when this is dropped and they are done.
#[derive(Debug)]
pub(crate) struct Workers {
    jobs: SyncSender<Job>,
    waiting: Arc<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    jobs: Mutex<Receiver<Job>>,
    /// Threads that wait and have not been given anything yet.
    count: AtomicUsize,
}

impl Workers {
    /// For at most `most` jobs at once.
    pub(crate) fn new(most: usize) -> Self {
        let (jobs, source) = mpsc::sync_channel(most);
        Self {
            jobs,
            waiting: Arc::new(Waiting {
                jobs: Mutex::new(source),
                count: AtomicUsize::new(0),
            }),
        }
    }

    /// Have something done. Blocks while more than `most` jobs wait.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let one_waits = |count: usize| count.checked_sub(1);
        let claimed = self.waiting.count.fetch_update(Relaxed, Relaxed, one_waits);
        if claimed.is_err() {
            let waiting = Arc::clone(&self.waiting);
            spawn(move || work(&waiting))?;
        }
        // There is a receiver for as long as this has its share of it.
        let _ = self.jobs.send(Box::new(job));
        Ok(())
    }
}

fn work(waiting: &Waiting) {
    loop {
        let next = {
            let jobs = waiting.jobs.lock();
            jobs.unwrap_or_else(PoisonError::into_inner).recv()
        };
        let Ok(job) = next else { return };
        job();
        let stays = |count: usize| (count < SPARE).then_some(count + 1);
        if waiting.count.fetch_update(Relaxed, Relaxed, stays).is_err() {
            return;
        }
    }
}

/// A thread of its own.
pub(crate) fn spawn(work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    thread::Builder::new()
        .stack_size(STACK)
        .spawn(work)
        .map(drop)
        .map_err(|source: io::Error| Error::Run {
            program: "a thread".into(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Barrier, time::Duration};

    #[test]
    fn many_run_at_once_and_one_waits_for_more() {
        let workers = Workers::new(8);
        let (done, results) = mpsc::channel();
        for round in 0..3 {
            // None passes until all run.
            let together = Arc::new(Barrier::new(8));
            for job in 0..8 {
                let (together, done) = (Arc::clone(&together), done.clone());
                let run = move || {
                    together.wait();
                    done.send((round, job)).unwrap();
                };
                workers.run(run).unwrap();
            }
            let mut seen: Vec<_> = (0..8)
                .map(|_| results.recv_timeout(Duration::from_mins(1)).unwrap())
                .collect();
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7].map(|job| (round, job)));
        }
        let deadline = std::time::Instant::now() + Duration::from_mins(1);
        while workers.waiting.count.load(Relaxed) != SPARE {
            assert!(std::time::Instant::now() < deadline);
            thread::sleep(Duration::from_millis(1));
        }
    }
}
