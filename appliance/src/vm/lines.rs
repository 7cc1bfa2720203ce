//! Lines of bounded length from a stream.

use std::io;

use protocol::line::MAX_LINE;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What came next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line, without its end; bytes that are not UTF-8 are replaced.
    Text(String),
    /// More than [`MAX_LINE`] bytes without an end.
    TooLong,
    /// The stream ended; a last line without an end is dropped, since it may be a part.
    End,
}

/// Reads lines.
#[derive(Debug)]
pub(super) struct Lines<R> {
    source: R,
    buffer: Vec<u8>,
    /// How much of the buffer is known to hold no line end.
    searched: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub fn new(source: R) -> Self {
        Self {
            source,
            buffer: Vec::new(),
            searched: 0,
        }
    }

    /// The next line. Nothing is lost when this is dropped before it is done.
    pub async fn next(&mut self) -> io::Result<Line> {
        loop {
            let fresh = &self.buffer[self.searched..];
            if let Some(at) = fresh.iter().position(|byte| *byte == b'\n') {
                let end = self.searched + at;
                let text = String::from_utf8_lossy(&self.buffer[..end]);
                let text = text.trim_end_matches('\r').to_owned();
                self.buffer.drain(..=end);
                self.searched = 0;
                return Ok(Line::Text(text));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > MAX_LINE {
                return Ok(Line::TooLong);
            }
            self.buffer.reserve(4096);
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                return Ok(Line::End);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn lines_come_whole_whatever_the_pieces() {
        let (mut near, far) = tokio::io::duplex(8);
        let writer = tokio::spawn(async move {
            for piece in ["on", "e\ntwo\r", "\n\nth\u{e9}", "\npart"] {
                near.write_all(piece.as_bytes()).await.unwrap();
            }
        });
        let mut lines = Lines::new(far);
        for expected in ["one", "two", "", "th\u{e9}"] {
            assert_eq!(lines.next().await.unwrap(), Line::Text(expected.into()));
        }
        assert_eq!(lines.next().await.unwrap(), Line::End);
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused() {
        let endless = tokio::io::repeat(b'x');
        assert_eq!(Lines::new(endless).next().await.unwrap(), Line::TooLong);
    }
}
