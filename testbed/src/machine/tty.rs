//! A tty of a guest, kept open from here.

use std::time::Duration;

use super::{COMMAND_LIMIT, Error, Machine, SLACK, run};
use crate::agent::{LineStep, Reply, Request, Transfer, Transferred};

/// An open tty of a guest: raw, 8N1, no flow control. It is closed when this is dropped.
#[derive(Debug)]
pub struct Tty<'a> {
    machine: &'a Machine,
    number: u64,
}

impl Machine {
    /// Opens a tty of the guest at `baud` bits per second, or a connection in its stead (`tcp:HOST:PORT`). What the device sends before this returns is lost.
    pub fn open_tty(&self, path: &str, baud: u32) -> Result<Tty<'_>, Error> {
        let number = run::unique();
        self.ask(
            Request::OpenTty {
                tty: number,
                path: path.to_owned(),
                baud,
            },
            COMMAND_LIMIT,
        )?;
        Ok(Tty {
            machine: self,
            number,
        })
    }

    /// Opens a tty of the guest at 1200 baud, drops DTR and closes it: the sign for a Leonardo to start its
    /// bootloader.
    pub fn touch_1200(&self, path: &str) -> Result<(), Error> {
        let step = LineStep {
            dtr: Some(false),
            rts: None,
            hold_ms: 50,
        };
        self.open_tty(path, 1200)?.lines(&[step])
    }
}

impl Tty<'_> {
    /// Sends and receives bytes, within `limit`. A transfer that stalls is a result, not an error.
    pub fn transfer(&self, transfer: Transfer, limit: Duration) -> Result<Transferred, Error> {
        match self.machine.ask(
            Request::Transfer {
                tty: self.number,
                transfer,
            },
            limit,
        )? {
            Reply::Transferred(result) => Ok(result),
            _ => Err(self.machine.confused("a transfer")),
        }
    }

    /// Seconds per round of `size` bytes to a device that echoes.
    pub fn round_trips(&self, size: usize, rounds: usize) -> Result<Vec<f64>, Error> {
        let request = Request::RoundTrips {
            tty: self.number,
            size,
            rounds,
        };
        match self.machine.ask(request, COMMAND_LIMIT + SLACK)? {
            Reply::RoundTrips(seconds) => Ok(seconds),
            _ => Err(self.machine.confused("round trips")),
        }
    }

    /// Walks through `steps` on DTR and RTS.
    pub fn lines(&self, steps: &[LineStep]) -> Result<(), Error> {
        let request = Request::Lines {
            tty: self.number,
            steps: steps.to_vec(),
        };
        self.machine.ask(request, COMMAND_LIMIT).map(|_| ())
    }
}

impl Drop for Tty<'_> {
    fn drop(&mut self) {
        // A machine that is off has closed it already.
        let _ = self
            .machine
            .ask(Request::CloseTty { tty: self.number }, COMMAND_LIMIT);
    }
}
