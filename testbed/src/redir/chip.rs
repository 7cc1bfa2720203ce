//! What distinguishes one chip from another: its requests and how it frames bytes.

use std::collections::VecDeque;
use std::ops::Range;

use super::lines::Lines;
use super::wire::Setup;

/// Outcome of a control request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Data for the guest; more than it asked for is cut.
    Data(Vec<u8>),
    /// An OUT request that was taken.
    Done,
    /// Refused.
    Stall,
}

/// A chip, or one function of a composite device.
pub(super) trait Chip: Send {
    /// A class or vendor request, or a standard request to an interface's own descriptors.
    fn request(&mut self, setup: Setup, data: &[u8], lines: &mut Lines) -> Answer;

    /// Takes up to `wanted` bytes for one bulk IN transfer on `line`; `None` lets it wait.
    fn input(&mut self, _line: usize, wanted: usize, queue: &mut VecDeque<u8>) -> Option<Vec<u8>> {
        let n = wanted.min(queue.len());
        (n > 0).then(|| queue.drain(..n).collect())
    }

    /// Takes the data of one bulk OUT transfer on `line`.
    fn output(&mut self, line: usize, data: &[u8], lines: &mut Lines) {
        lines.receive(line, data);
    }

    /// The program memory, where the chip has one that the guest can write.
    fn flash(&self) -> Option<&[u8]> {
        None
    }
}

/// A chip that knows no requests beyond the standard ones.
pub(super) struct Plain;

impl Chip for Plain {
    fn request(&mut self, _setup: Setup, _data: &[u8], _lines: &mut Lines) -> Answer {
        Answer::Stall
    }
}

/// One function of a composite device.
pub(super) struct Part {
    /// Interface numbers whose requests it answers.
    pub(super) interfaces: Range<u8>,
    /// Lines that it serves.
    pub(super) lines: Range<usize>,
    pub(super) chip: Box<dyn Chip>,
}

/// Several functions behind one device.
pub(super) struct Composite(pub(super) Vec<Part>);

impl Composite {
    fn serving(&mut self, line: usize) -> Option<&mut Part> {
        self.0.iter_mut().find(|part| part.lines.contains(&line))
    }
}

impl Chip for Composite {
    fn request(&mut self, setup: Setup, data: &[u8], lines: &mut Lines) -> Answer {
        // Recipient 1 is an interface, named by the low byte of wIndex.
        let [interface, _] = setup.index.to_le_bytes();
        let part = self
            .0
            .iter_mut()
            .find(|part| setup.request_type & 0x1f == 1 && part.interfaces.contains(&interface));
        part.map_or(Answer::Stall, |part| part.chip.request(setup, data, lines))
    }

    fn input(&mut self, line: usize, wanted: usize, queue: &mut VecDeque<u8>) -> Option<Vec<u8>> {
        self.serving(line)?.chip.input(line, wanted, queue)
    }

    fn output(&mut self, line: usize, data: &[u8], lines: &mut Lines) {
        if let Some(part) = self.serving(line) {
            part.chip.output(line, data, lines);
        }
    }

    fn flash(&self) -> Option<&[u8]> {
        self.0.iter().find_map(|part| part.chip.flash())
    }
}
