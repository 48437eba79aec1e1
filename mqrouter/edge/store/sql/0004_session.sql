-- Which session a question belongs to, in its sender's words, and the strategy that decided it.
ALTER TABLE requests ADD COLUMN session  TEXT;
ALTER TABLE requests ADD COLUMN strategy TEXT;
CREATE INDEX requests_by_session ON requests (device, session, seq) WHERE session IS NOT NULL AND route IS NOT NULL;
-- A session is a handful of questions: what the planner cannot know of an empty database.
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('requests', 'requests_by_session', '100000 1000 10 1');
ANALYZE sqlite_schema;
