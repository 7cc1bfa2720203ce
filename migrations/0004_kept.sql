-- What people decided about devices, whether they are plugged in or not.
-- scope: as manager::Scope is written: "serial NUMBER", "port PATH" or "product 10c4:ea60".

-- The names that people gave devices.
CREATE TABLE alias (
    scope TEXT NOT NULL PRIMARY KEY,
    alias TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- ruling: as manager::Ruling is written: "ignore" or "export".
CREATE TABLE rule (
    scope TEXT NOT NULL PRIMARY KEY,
    ruling TEXT NOT NULL
) STRICT, WITHOUT ROWID;
