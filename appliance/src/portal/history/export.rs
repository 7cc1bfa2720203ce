//! All wanted events as a file, the oldest first. Read and sent in parts, so that neither the size
//! of the history nor a slow reader costs memory.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web::{self, Bytes},
};
use csv::{Terminator, WriterBuilder};
use futures_util::stream;

use super::{
    super::{Context, page, text::shown},
    entry::Entry,
    query::Query,
};
use crate::history::{Cursor, Filter, Store};

/// Events read at once.
const PART: u32 = 500;

const COLUMNS: [&str; 15] = [
    "sequence",
    "time",
    "clock",
    "boot_id",
    "mono_ms",
    "kind",
    "device",
    "busid",
    "name",
    "peer",
    "message",
    "ttys",
    "plug_to_tty_ms",
    "count",
    "last_time",
];

/// `GET /history.csv?kind=KIND&device=IDENTITY&from=DAY&to=DAY`: RFC 4180, with a header line.
pub(in super::super) async fn csv(
    request: HttpRequest,
    context: web::Data<Context>,
) -> HttpResponse {
    send(
        &request,
        &context,
        "csv",
        "text/csv; charset=utf-8",
        |part, entries| {
            let mut writer = WriterBuilder::new()
                .terminator(Terminator::CRLF)
                .from_writer(Vec::new());
            if part.first {
                writer.write_record(COLUMNS)?;
            }
            for entry in entries {
                writer.write_record(row(entry))?;
            }
            writer
                .into_inner()
                .map_err(|error| error.into_error().into())
        },
    )
}

/// `GET /history.json?kind=KIND&device=IDENTITY&from=DAY&to=DAY`: an array, one event on each line.
pub(in super::super) async fn json(
    request: HttpRequest,
    context: web::Data<Context>,
) -> HttpResponse {
    send(
        &request,
        &context,
        "json",
        "application/json",
        |part, entries| {
            let mut text = Vec::new();
            if part.first {
                text.push(b'[');
            }
            for (n, entry) in entries.iter().enumerate() {
                if !(part.first && n == 0) {
                    text.push(b',');
                }
                text.push(b'\n');
                serde_json::to_writer(&mut text, entry)?;
            }
            if part.last {
                text.extend_from_slice(b"\n]\n");
            }
            Ok(text)
        },
    )
}

/// Why a file ends too early.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("failed to read the history to its end")]
    Read,
    #[error("failed to write a line of CSV")]
    Csv(#[from] csv::Error),
    #[error("failed to write a line of CSV")]
    Buffer(#[from] std::io::Error),
    #[error("failed to write a line of JSON")]
    Json(#[from] serde_json::Error),
}

/// Which part of a file it is.
struct Part {
    first: bool,
    last: bool,
}

struct Export {
    store: Store,
    filter: Filter,
    after: i64,
    first: bool,
    done: bool,
}

type Write = fn(&Part, &[Entry]) -> Result<Vec<u8>, ExportError>;

impl Export {
    async fn next(&mut self, write: Write) -> Result<Bytes, ExportError> {
        let cursor = Cursor::After(self.after);
        let reading = self.store.events(&self.filter, cursor, PART).await;
        // Where nothing can be read from the start, the latest events are better than none.
        if !reading.complete && !self.first {
            return Err(ExportError::Read);
        }
        let part = Part {
            first: self.first,
            last: !reading.more,
        };
        self.first = false;
        self.done = part.last;
        if let Some(last) = reading.records.last() {
            self.after = last.sequence;
        }
        let entries: Vec<Entry> = reading.records.iter().map(Entry::of).collect();
        write(&part, &entries).map(Bytes::from)
    }
}

fn send(
    request: &HttpRequest,
    context: &Context,
    ending: &str,
    kind: &'static str,
    write: Write,
) -> HttpResponse {
    let (query, wrong) = Query::read(request.query_string());
    if let Some(error) = wrong.first() {
        let body = format!("{error}: {}\n", error.remedy());
        return page::plain(StatusCode::BAD_REQUEST, body);
    }
    let export = Export {
        store: context.history.clone(),
        filter: query.filter,
        after: 0,
        first: true,
        done: false,
    };
    let parts = stream::unfold(export, move |mut export| async move {
        if export.done {
            return None;
        }
        let part = export.next(write).await;
        export.done |= part.is_err();
        Some((
            part.map_err(actix_web::error::ErrorInternalServerError),
            export,
        ))
    });
    let disposition = format!("attachment; filename=\"usbip-pi-history.{ending}\"");
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, kind))
        .insert_header((header::CONTENT_DISPOSITION, disposition))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .streaming(Box::pin(parts))
}

fn row(entry: &Entry) -> [String; 15] {
    let text = |text: Option<&str>| text.map(cell).unwrap_or_default();
    let device = entry.device.as_ref();
    let attached = entry.attached.as_ref();
    let ms = attached.and_then(|attached| attached.plug_to_tty_ms);
    let clock = serde_json::to_value(entry.clock).unwrap_or_default();
    [
        entry.sequence.to_string(),
        entry.time.clone().unwrap_or_default(),
        clock.as_str().unwrap_or_default().to_owned(),
        entry.boot_id.clone(),
        entry.mono_ms.to_string(),
        entry.kind.as_str().to_owned(),
        text(device.map(|device| device.identity.as_str())),
        text(device.map(|device| device.busid.as_str())),
        text(device.and_then(|device| device.name.as_deref())),
        entry.peer.map(|peer| peer.to_string()).unwrap_or_default(),
        text(entry.message.as_deref()),
        attached
            .map(|attached| cell(&attached.ttys.join(" ")))
            .unwrap_or_default(),
        ms.map(|ms| ms.to_string()).unwrap_or_default(),
        entry.count.to_string(),
        entry.last_time.clone().unwrap_or_default(),
    ]
}

/// A text from a device or the VM as a cell. Spreadsheets take some for a formula, which could send
/// what is in the sheet elsewhere: an apostrophe in front makes it text
/// (<https://owasp.org/www-community/attacks/CSV_Injection>).
fn cell(text: &str) -> String {
    let text = shown(text);
    if text.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']) {
        format!("'{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn no_cell_is_a_formula() {
        assert_eq!(cell("=1+1"), "'=1+1");
        assert_eq!(cell("\t@SUM(A1)"), "'@SUM(A1)");
        assert_eq!(cell("\r\n-2"), "'-2");
        assert_eq!(cell("\u{202e}=1"), "\u{fffd}=1");
        assert_eq!(cell("CP2102N"), "CP2102N");
    }
}
