//! From an accepted connection to a request: the layer between accept and import.
//!
//! What is agreed on the connection before USB/IP is spoken belongs in [`open`].

use std::{io, time::Duration};

use protocol::wire::{Header, Request};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use super::RefusedImport;

/// A whole request has this long to arrive, however it is cut into packets.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// Read one request, and not a byte more: what follows an import belongs to the kernel. None when the
/// peer left without a word: the helper connects before it knows whether it needs to.
pub(super) async fn open(stream: &mut TcpStream) -> Result<Option<Request>, RefusedImport> {
    timeout(DEADLINE, request(stream))
        .await
        .unwrap_or(Err(RefusedImport::Timeout))
}

async fn request(stream: &mut TcpStream) -> Result<Option<Request>, RefusedImport> {
    let mut header = [0; Header::SIZE];
    let begun = stream.read(&mut header).await.map_err(cut_short)?;
    if begun == 0 {
        return Ok(None);
    }
    let rest = stream.read_exact(&mut header[begun..]);
    rest.await.map_err(cut_short)?;
    let header = Header::decode(header).map_err(malformed)?;
    let mut body = vec![0; header.request_body_len().map_err(malformed)?];
    stream.read_exact(&mut body).await.map_err(cut_short)?;
    let request = Request::decode(header, &body).map_err(malformed)?;
    Ok(Some(request))
}

#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
fn malformed(error: impl ToString) -> RefusedImport {
    RefusedImport::Malformed(error.to_string())
}

fn cut_short(error: io::Error) -> RefusedImport {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => malformed("the connection ended within it"),
        _ => malformed(error),
    }
}
