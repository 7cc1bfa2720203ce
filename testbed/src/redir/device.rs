//! The handle by which a test plays the far side of a plugged-in device.

use std::time::{Duration, Instant};

use super::board::Board;
use super::kind::{Kind, Persona};
use super::lines::{Entry, LINE_CAPACITY, Line};
use super::port::{Error, Shared};
use std::sync::Arc;

/// A handle on whatever is plugged into one [`Port`](super::Port), and on one of its lines.
///
/// Cheap to clone. It stays good when the device is unplugged, re-enumerates or is replaced:
/// it always speaks of the device that was plugged in last, whose bytes and log can still be
/// read after it is gone.
#[derive(Clone)]
pub struct Device {
    shared: Arc<Shared>,
    line: usize,
}

impl Device {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, line: 0 }
    }

    /// The same device's line `index`, counted from 0: an FT2232 has two.
    #[must_use]
    pub fn line(&self, index: usize) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            line: index,
        }
    }

    fn read<T: Default>(&self, get: impl FnOnce(&Board) -> T) -> T {
        self.shared.lock().board().map_or_else(T::default, get)
    }

    fn read_line<T: Default>(&self, get: impl FnOnce(&Line) -> T) -> T {
        self.read(|board| board.lines.get(self.line).map_or_else(T::default, get))
    }

    /// What is plugged in, or was last.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        self.read(|board| Some(board.kind()))
    }

    /// Whether the guest has the device now.
    #[must_use]
    pub fn is_plugged(&self) -> bool {
        self.shared.lock().is_plugged()
    }

    /// Sends bytes to the guest, which gets them when it reads. The line holds
    /// [`LINE_CAPACITY`] bytes; what does not fit is refused as a whole.
    pub fn feed(&self, data: &[u8]) -> Result<(), Error> {
        let mut inner = self.shared.lock();
        let line = self.line;
        inner.update(|board| {
            let queue = board.lines.get(line).ok_or(Error::NoLine(line))?;
            if queue.to_guest.len() + data.len() > LINE_CAPACITY {
                return Err(Error::LineFull(line));
            }
            board.lines.send(line, data);
            Ok(())
        })
    }

    /// Bytes fed that the guest has not read yet.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.read_line(|line| line.to_guest.len())
    }

    /// The bytes that came from the guest since they were last taken.
    #[must_use]
    pub fn received(&self) -> Vec<u8> {
        self.read_line(|line| line.received.clone())
    }

    /// How many bytes [`received`](Self::received) has.
    #[must_use]
    pub fn received_len(&self) -> usize {
        self.read_line(|line| line.received.len())
    }

    /// Takes the bytes that came from the guest. A line that was full accepts more after it.
    #[must_use]
    pub fn take_received(&self) -> Vec<u8> {
        let mut taken = Vec::new();
        // Without a device there are no bytes, which is what the caller then gets.
        let _ = self.shared.lock().update(|board| {
            if let Some(line) = board.lines.get_mut(self.line) {
                taken = std::mem::take(&mut line.received);
            }
            Ok(())
        });
        taken
    }

    /// Whether bytes from the guest are sent back to it, besides being kept.
    pub fn set_echo(&self, echo: bool) {
        // Without a device there is no line to set.
        let _ = self.shared.lock().update(|board| {
            if let Some(line) = board.lines.get_mut(self.line) {
                line.echo = echo;
            }
            Ok(())
        });
    }

    /// Speed of the line, bits per second. Where a chip is given a divisor, the standard rate
    /// nearest to what it yields.
    #[must_use]
    pub fn baud(&self) -> u32 {
        self.read_line(|line| line.baud)
    }

    /// Data Terminal Ready.
    #[must_use]
    pub fn dtr(&self) -> bool {
        self.read_line(|line| line.dtr)
    }

    /// Request To Send.
    #[must_use]
    pub fn rts(&self) -> bool {
        self.read_line(|line| line.rts)
    }

    /// Whether the guest holds the line in a break.
    #[must_use]
    pub fn is_on_break(&self) -> bool {
        self.read_line(|line| line.on_break)
    }

    /// What happened to the device since it was plugged in first, oldest first (all lines).
    #[must_use]
    pub fn log(&self) -> Vec<Entry> {
        self.read(|board| board.lines.log().cloned().collect())
    }

    /// The program memory of a board whose bootloader writes it (Uno: 32 KiB).
    #[must_use]
    pub fn flash(&self) -> Option<Vec<u8>> {
        self.read(|board| board.flash().map(<[u8]>::to_vec))
    }

    /// Whether the device shows its bootloader's vendor and product id.
    #[must_use]
    pub fn is_bootloader(&self) -> bool {
        self.read(|board| board.persona() == Persona::Bootloader)
    }

    /// Leaves the bus and comes back as its bootloader (Leonardo, ESP32-S3; others come back as
    /// they were).
    pub fn reset_to_bootloader(&self) -> Result<(), Error> {
        self.shared.lock().reenumerate(Persona::Bootloader)
    }

    /// Leaves the bus and comes back as what the application shows.
    pub fn reset_to_app(&self) -> Result<(), Error> {
        self.shared.lock().reenumerate(Persona::Application)
    }

    /// How long a Leonardo stays in its bootloader after a touch (8 s, as the real one, unless
    /// set).
    pub fn set_bootloader_stay(&self, stay: Duration) {
        self.shared.lock().set_bootloader_stay(stay);
    }

    /// Waits until `holds`, checked again at each thing that happens; false when it did not in
    /// time.
    #[must_use]
    pub fn wait_until(&self, timeout: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            let seen = self.shared.changes();
            if holds(self) {
                return true;
            }
            if !self.shared.wait_for_change(seen, deadline) {
                return holds(self);
            }
        }
    }
}
