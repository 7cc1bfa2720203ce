-- What happened, and which devices were seen.

-- sequence: the order of events; never used twice.
-- boot_id, mono_ms: the kernel's boot, and milliseconds since then.
-- unix_ms: the wall clock, as history::Clock in `clock` says how far it can be trusted:
--   0 not set then, 1 set, 2 not set then and worked out later from mono_ms.
-- kind: as history::Kind is written.
-- device: as manager::Identity writes it; name and busid are those of that moment.
-- peer: the address of who caused it, where somebody on the network did.
-- attached: for an attach, history::AttachDetail as JSON.
-- count, last_ms: repeats in quick succession are one row; last_ms is the latest one's unix_ms.
CREATE TABLE event (
    sequence INTEGER NOT NULL PRIMARY KEY,
    boot_id TEXT NOT NULL,
    mono_ms INTEGER NOT NULL,
    unix_ms INTEGER NOT NULL,
    clock INTEGER NOT NULL CHECK (clock IN (0, 1, 2)),
    kind TEXT NOT NULL,
    device TEXT,
    busid TEXT,
    name TEXT,
    peer TEXT,
    message TEXT,
    attached TEXT,
    count INTEGER NOT NULL,
    last_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX event_kind ON event (kind);
CREATE INDEX event_device ON event (device) WHERE device IS NOT NULL;
CREATE INDEX event_time ON event (unix_ms);
CREATE INDEX event_undated ON event (boot_id) WHERE clock = 0;

-- Devices that were plugged in at some time.
-- first_ms, last_ms: the wall clock; none where it was not set yet.
CREATE TABLE seen (
    identity TEXT NOT NULL PRIMARY KEY,
    vendor INTEGER NOT NULL,
    product INTEGER NOT NULL,
    manufacturer TEXT,
    name TEXT,
    serial TEXT,
    port TEXT NOT NULL,
    first_ms INTEGER,
    last_ms INTEGER,
    plugs INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
