-- What is kept about each device across restarts.
-- identity: as manager::Identity writes it.
-- tty: the first tty node it had on the VM, such as /dev/ttyUSB0.
-- held: 1 while a person holds it back.
CREATE TABLE device (
    identity TEXT NOT NULL PRIMARY KEY,
    tty TEXT,
    held INTEGER NOT NULL CHECK (held IN (0, 1))
) STRICT, WITHOUT ROWID;
