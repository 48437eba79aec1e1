-- Conversations, and answers that a better one follows.
-- A provisional answer is the request's one row in the outbox until the terminal answer takes its place.
ALTER TABLE outbox   ADD COLUMN is_provisional INTEGER NOT NULL DEFAULT 0;
ALTER TABLE requests ADD COLUMN saw_private    INTEGER NOT NULL DEFAULT 0;  -- answered with private turns in view
-- Every turn of a session; requests_by_session has those that took a route.
CREATE INDEX requests_by_conversation ON requests (device, session, seq) WHERE session IS NOT NULL;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('requests', 'requests_by_conversation', '100000 1000 10 1');
ANALYZE sqlite_schema;
