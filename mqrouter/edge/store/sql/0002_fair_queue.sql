-- Fair turns between devices, the size of what is held, the gateway's own time, and tiers an operator paused.
ALTER TABLE requests ADD COLUMN turn  INTEGER NOT NULL DEFAULT 0;  -- order of service among equal priorities
ALTER TABLE requests ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;  -- of the payload
UPDATE requests SET turn = seq, bytes = length(payload);

DROP INDEX requests_received;
DROP INDEX requests_due;
CREATE INDEX requests_received  ON requests (priority DESC, turn, seq) WHERE state = 'received';
CREATE INDEX requests_due       ON requests (todo, priority DESC, turn, seq) WHERE state = 'pending' AND not_before_ms IS NULL;
CREATE INDEX requests_partial   ON requests (todo, tiers) WHERE state = 'pending' AND todo <> tiers;
CREATE INDEX requests_held      ON requests (device, priority, turn, bytes, state) WHERE state IN ('received', 'pending', 'leased');
CREATE INDEX requests_droppable ON requests (priority, turn, seq) WHERE state IN ('received', 'pending');
CREATE INDEX requests_resting   ON requests (todo) WHERE state = 'pending' AND not_before_ms IS NOT NULL;
CREATE INDEX requests_suspect   ON requests (state, todo) WHERE crashes > 0;
-- What the operator lists, newest first.
CREATE INDEX requests_by_state  ON requests (state, seq);
CREATE INDEX requests_by_device ON requests (device, state, seq, route);
CREATE INDEX requests_by_route  ON requests (route, state, seq);
CREATE INDEX requests_by_name   ON requests (client_id, seq) WHERE client_id IS NOT NULL;

-- One row: the gateway's time at one moment of the machine's clocks.
CREATE TABLE timeline (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    now_ms        INTEGER NOT NULL,
    wall_ms       INTEGER NOT NULL,
    since_boot_ms INTEGER NOT NULL,
    boot_id       TEXT NOT NULL
);

-- Tiers that an operator holds back.
CREATE TABLE paused (
    tier  TEXT PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    actor TEXT NOT NULL
);

-- What operators did.
CREATE TABLE actions (
    seq    INTEGER PRIMARY KEY,
    at_ms  INTEGER NOT NULL,
    actor  TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL
);

-- What the planner cannot know of an empty database: a state may hold a million rows, a due list is what one asks for.
ANALYZE sqlite_schema;
DELETE FROM sqlite_stat1;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('requests', 'requests_by_state',  '1000000 500000 1'),
    ('requests', 'requests_by_device', '1000000 10000 5000 1 1'),
    ('requests', 'requests_by_route',  '1000000 100000 50000 1'),
    ('requests', 'requests_received',  '1000 100 2 1'),
    ('requests', 'requests_due',       '100000 20000 5000 2 1'),
    ('requests', 'requests_resting',   '1000 200'),
    ('requests', 'requests_partial',   '1000 200 100'),
    ('requests', 'requests_waiting',   '1000 2'),
    ('requests', 'requests_leased',    '20 1'),
    ('requests', 'requests_suspect',   '10 2 1'),
    ('requests', 'requests_expiring',  '100000 2'),
    ('requests', 'requests_refused',   '10000 2'),
    ('requests', 'requests_finished',  '1000000 2'),
    ('requests', 'requests_held',      '100000 1000 200 2 1 1'),
    ('requests', 'requests_droppable', '100000 20000 2 1');
ANALYZE sqlite_schema;

-- Tiers that asked to be left alone, and until when.
CREATE TABLE holds (
    tier     TEXT PRIMARY KEY,
    until_ms INTEGER NOT NULL
);
