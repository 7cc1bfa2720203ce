-- Who may use the portal. Of cookies and tokens only digests are kept.

-- key: SHA-256 of the cookie's token, in hex.
-- address: where it signed in from.
-- created_ms: when, in milliseconds since 1970; none where the clock was not set.
-- ran_s: for how long the Pi has run since then, in seconds.
CREATE TABLE session (
    key TEXT NOT NULL PRIMARY KEY,
    address TEXT NOT NULL,
    created_ms INTEGER,
    ran_s INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- key: SHA-256 of the token, in hex.
-- name: what a person calls it.
-- created_ms, used_ms: when it was made, and last used to about an hour; none where the clock was not set, or never.
CREATE TABLE token (
    key TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    created_ms INTEGER,
    used_ms INTEGER
) STRICT, WITHOUT ROWID;
