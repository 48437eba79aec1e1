-- What each tier was used for, by day (counted from the first of 1970, UTC, by the gateway's time).
CREATE TABLE spending (
    seq               INTEGER PRIMARY KEY,
    tier              TEXT NOT NULL,
    day               INTEGER NOT NULL,
    requests          INTEGER NOT NULL,
    prompt_tokens     INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cost              REAL NOT NULL              -- in the currency of the tier's prices at the time
);
CREATE UNIQUE INDEX spending_by_day ON spending (tier, day);

-- Calls under way, with what they are expected to use, and those of the latest minute, with what they used.
CREATE TABLE calls (
    seq               INTEGER PRIMARY KEY,
    tier              TEXT NOT NULL,
    request           INTEGER NOT NULL,
    lease             INTEGER NOT NULL,
    at_ms             INTEGER NOT NULL,
    prompt_tokens     INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cost              REAL NOT NULL,
    is_open           INTEGER NOT NULL
);
CREATE INDEX calls_open ON calls (request, lease) WHERE is_open = 1;
CREATE INDEX calls_done ON calls (tier, at_ms) WHERE is_open = 0;
