-- Pending requests that were tried in vain, those tried most often last.
CREATE INDEX requests_attempted ON requests (attempts, seq) WHERE state = 'pending' AND attempts > 0;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('requests', 'requests_attempted', '10000 1000 1');
ANALYZE sqlite_schema;
