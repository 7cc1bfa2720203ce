//! That the appliance started, and whether another version of it ran before.

use super::{Cursor, Event, Filter, Kind, Store};

/// What stands before the version in the event of a start.
const VERSION: &str = "version ";

/// Record a start of this version; where the start before was another one's, that there was an update, too. Waits
/// for the disk.
pub async fn record_start(store: &Store, version: &str) {
    store.append(Event::new(Kind::Started).saying(format!("{VERSION}{version}")));
    let filter = Filter {
        kind: Some(Kind::Started),
        ..Filter::default()
    };
    let starts = store.events(&filter, Cursor::Newest, 2).await.records;
    let before = starts
        .get(1)
        .and_then(|start| start.event.message.as_deref()?.strip_prefix(VERSION));
    if let Some(before) = before.filter(|before| *before != version) {
        let message = format!("version {before} was replaced by version {version}");
        store.append(Event::new(Kind::Update).saying(message));
    }
}
