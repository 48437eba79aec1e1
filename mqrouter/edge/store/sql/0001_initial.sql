-- One row per request; its state says where it is. Times are milliseconds since 1970.
CREATE TABLE requests (
    seq            INTEGER PRIMARY KEY,          -- order of acceptance
    id             TEXT NOT NULL UNIQUE,         -- public name, and the Idempotency-Key upstream
    state          TEXT NOT NULL,
    reason         TEXT,                         -- error code, where it ended with one
    detail         TEXT,
    -- what came in, as it came
    topic          TEXT,
    device         TEXT NOT NULL,
    payload        BLOB NOT NULL,
    content_type   TEXT,
    payload_hash   BLOB NOT NULL,
    dedupe_key     BLOB,
    -- where the answer goes
    reply_topic    TEXT,
    correlation    BLOB,
    client_id      TEXT,
    form           TEXT,
    max_bytes      INTEGER,
    -- what the sender wants
    priority       INTEGER NOT NULL DEFAULT 0,
    is_private     INTEGER NOT NULL DEFAULT 0,
    received_at_ms INTEGER NOT NULL,
    expires_at_ms  INTEGER NOT NULL,
    client_expiry  INTEGER NOT NULL DEFAULT 0,
    -- what was decided
    route          TEXT,
    decision       TEXT,                         -- JSON, explains itself
    confidence     REAL,                         -- score of the route it took
    tiers          TEXT,                         -- all tiers left, "hub>regional"
    todo           TEXT,                         -- those not yet tried in this round
    not_before_ms  INTEGER,                      -- NULL: due now
    -- what happened
    attempts       INTEGER NOT NULL DEFAULT 0,   -- counted ones
    rounds         INTEGER NOT NULL DEFAULT 0,   -- times every tier had failed
    lease          INTEGER NOT NULL DEFAULT 0,   -- fencing token: number of the latest lease
    crashes        INTEGER NOT NULL DEFAULT 0,   -- times the daemon died while holding it
    tier           TEXT,
    model          TEXT,
    finished_at_ms INTEGER
);
CREATE UNIQUE INDEX requests_dedupe   ON requests (dedupe_key) WHERE dedupe_key IS NOT NULL;
CREATE INDEX requests_received        ON requests (priority DESC, seq) WHERE state = 'received';
CREATE INDEX requests_due             ON requests (todo, priority DESC, seq) WHERE state = 'pending' AND not_before_ms IS NULL;
CREATE INDEX requests_waiting         ON requests (not_before_ms) WHERE state = 'pending' AND not_before_ms IS NOT NULL;
CREATE INDEX requests_leased          ON requests (seq) WHERE state = 'leased';
CREATE INDEX requests_expiring        ON requests (expires_at_ms) WHERE state IN ('received', 'pending');
CREATE INDEX requests_refused         ON requests (finished_at_ms) WHERE state = 'dead' AND finished_at_ms IS NOT NULL;
CREATE INDEX requests_finished        ON requests (finished_at_ms) WHERE finished_at_ms IS NOT NULL;

-- The terminal answer of a request: at most one, by key. Kept for resending until the request is purged.
CREATE TABLE outbox (
    seq             INTEGER PRIMARY KEY,
    request         INTEGER NOT NULL UNIQUE REFERENCES requests (seq) ON DELETE CASCADE,
    topic           TEXT NOT NULL,
    payload         BLOB NOT NULL,
    correlation     BLOB,
    content_type    TEXT NOT NULL,
    user_properties TEXT NOT NULL,               -- JSON [[name, value], …]
    message_expires_at_ms INTEGER,               -- passed on as Message Expiry
    give_up_at_ms   INTEGER NOT NULL,
    state           TEXT NOT NULL DEFAULT 'ready',  -- ready | done | given_up
    not_before_ms   INTEGER,                     -- NULL: due now
    tries           INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX outbox_ready   ON outbox (seq) WHERE state = 'ready' AND not_before_ms IS NULL;
CREATE INDEX outbox_waiting ON outbox (not_before_ms) WHERE state = 'ready' AND not_before_ms IS NOT NULL;
CREATE INDEX outbox_giving_up ON outbox (give_up_at_ms) WHERE state = 'ready';

-- Every change of state, every attempt and every operator action.
CREATE TABLE history (
    seq     INTEGER PRIMARY KEY,
    request INTEGER NOT NULL REFERENCES requests (seq) ON DELETE CASCADE,
    at_ms   INTEGER NOT NULL,
    event   TEXT NOT NULL,
    note    TEXT
);
CREATE INDEX history_by_request ON history (request, seq);

-- The latest request accepted under each packet identifier: finds a redelivered one that has no key of its own.
CREATE TABLE packets (
    mid          INTEGER PRIMARY KEY,
    request      INTEGER NOT NULL,
    topic        TEXT,
    payload_hash BLOB NOT NULL
);
