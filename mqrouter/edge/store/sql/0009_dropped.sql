-- Requests an operator took out of the queue: when they end unless they are brought back. NULL: it never was dropped.
ALTER TABLE requests ADD COLUMN dropped_until_ms INTEGER;
CREATE INDEX requests_dropped ON requests (dropped_until_ms) WHERE state = 'dropped';
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('requests', 'requests_dropped', '1000 2');
ANALYZE sqlite_schema;
