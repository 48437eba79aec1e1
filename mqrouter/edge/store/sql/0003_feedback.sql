-- Verdicts on answers: the latest of each source on a request. They go with their request.
CREATE TABLE feedback (
    seq         INTEGER PRIMARY KEY,
    request     INTEGER NOT NULL REFERENCES requests (seq) ON DELETE CASCADE,
    at_ms       INTEGER NOT NULL,
    device      TEXT NOT NULL,                   -- that asked
    source      TEXT NOT NULL,                   -- mqtt | operator
    verdict     TEXT NOT NULL,                   -- good | bad | wrong_route
    right_route TEXT,
    note        TEXT
);
CREATE UNIQUE INDEX feedback_by_request ON feedback (request, source);
