-- The boards that people hold back, as manager::Scope is written. Before, they were in device.held by
-- identity, "303a:1001 serial NUMBER" or "303a:1001 port PATH"; that column is not read any more.
CREATE TABLE held (
    scope TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
INSERT OR IGNORE INTO held (scope)
    SELECT CASE substr(identity, 11, 7)
        WHEN 'serial ' THEN 'serial ' || upper(replace(replace(replace(replace(replace(
            substr(identity, 18), ':', ''), '-', ''), '_', ''), '.', ''), ' ', ''))
        ELSE substr(identity, 11)
    END
    FROM device WHERE held = 1;
