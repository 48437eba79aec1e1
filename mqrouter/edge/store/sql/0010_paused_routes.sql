-- Routes that an operator holds back. A lane asks for one tier list and one route at a time, so theirs are passed over.
CREATE TABLE paused_routes (
    seq   INTEGER PRIMARY KEY,
    route TEXT NOT NULL UNIQUE,
    actor TEXT NOT NULL,
    at_ms INTEGER NOT NULL
);
DROP INDEX requests_due;
DROP INDEX requests_resting;
CREATE INDEX requests_due     ON requests (todo, route, priority DESC, turn, seq) WHERE state = 'pending' AND not_before_ms IS NULL;
CREATE INDEX requests_resting ON requests (todo, route) WHERE state = 'pending' AND not_before_ms IS NOT NULL;
DELETE FROM sqlite_stat1 WHERE idx IN ('requests_due', 'requests_resting');
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('requests', 'requests_due',     '100000 20000 10000 5000 2 1'),
    ('requests', 'requests_resting', '1000 200 100');
ANALYZE sqlite_schema;
