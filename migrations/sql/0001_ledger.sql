-- The ledger. One schema for SQLite and PostgreSQL: only TEXT, BIGINT and BYTEA, nothing NULL
-- (0 or '' stands for "not yet"), times in milliseconds since the Unix epoch.

CREATE TABLE projects (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,               -- hex of the tenant's id; '' until one is bound
    created_ms BIGINT NOT NULL
);

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL REFERENCES projects (id),
    name TEXT NOT NULL,
    hash BYTEA NOT NULL,                -- BLAKE3, keyed with the pepper, over id and secret
    scopes TEXT NOT NULL,               -- words, comma between
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    revoked_ms BIGINT NOT NULL
);
CREATE INDEX api_keys_project ON api_keys (project, created_ms);

CREATE TABLE join_tokens (
    hash BYTEA PRIMARY KEY,             -- BLAKE3 of the join secret
    enrolment BYTEA NOT NULL,           -- canonical enrolment certificate
    created_by TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    taken_ms BIGINT NOT NULL,
    taken_by TEXT NOT NULL              -- hex of the taker's identity key; '' until then
);

CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    region TEXT NOT NULL,
    provider TEXT NOT NULL,             -- hex of the provider root's hash
    spec BYTEA NOT NULL,                -- canonical NodeSpec, the newest
    first_seen_ms BIGINT NOT NULL,
    changed_ms BIGINT NOT NULL,
    removed_ms BIGINT NOT NULL
);

CREATE TABLE prices (
    node TEXT NOT NULL,
    since_ms BIGINT NOT NULL,
    price_usd_micros BIGINT NOT NULL,   -- of one core for an hour
    PRIMARY KEY (node, since_ms)
);

CREATE TABLE usage (
    epoch BIGINT NOT NULL,
    idx BIGINT NOT NULL,
    ordinal BIGINT NOT NULL,
    row_no BIGINT NOT NULL,
    project TEXT NOT NULL,
    task TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    node TEXT NOT NULL,
    region TEXT NOT NULL,
    function TEXT NOT NULL,
    started_ms BIGINT NOT NULL,
    ended_ms BIGINT NOT NULL,
    milli_cpus BIGINT NOT NULL,
    peak_memory BIGINT NOT NULL,
    cpu_ms BIGINT NOT NULL,
    price_usd_micros BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    moved_there BIGINT NOT NULL,        -- bytes between regions
    moved_back BIGINT NOT NULL,
    egress_usd_femtos BIGINT NOT NULL,  -- what they cost
    emitted_ng BIGINT NOT NULL,         -- CO2e, billionths of a gram; below zero where nobody knew
    submitted_ms BIGINT NOT NULL,       -- the task
    spec BYTEA NOT NULL,                -- what the task asked: BLAKE3 of its canonical TaskSpec
    gang_rank BIGINT NOT NULL,          -- below zero where the task is on its own
    ends BIGINT NOT NULL,               -- 1 where the task ended with this attempt
    PRIMARY KEY (epoch, idx, ordinal, row_no)
);
CREATE INDEX usage_task ON usage (task);
CREATE INDEX usage_submitted ON usage (submitted_ms, task, attempt);

CREATE TABLE specs (
    digest BYTEA PRIMARY KEY,
    spec BYTEA NOT NULL                 -- canonical TaskSpec
);

CREATE TABLE charges (
    project TEXT NOT NULL,
    node TEXT NOT NULL,
    price_usd_micros BIGINT NOT NULL,
    minute BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    core_time BIGINT NOT NULL,          -- thousandth-core milliseconds
    egress_usd_femtos BIGINT NOT NULL,  -- what bytes between regions cost
    PRIMARY KEY (project, minute, node, price_usd_micros)
);

CREATE TABLE outbox_marks (
    sink TEXT PRIMARY KEY,
    epoch BIGINT NOT NULL,
    idx BIGINT NOT NULL,
    ordinal BIGINT NOT NULL,
    row_no BIGINT NOT NULL
);

CREATE TABLE audit (
    at_ms BIGINT NOT NULL,
    id TEXT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (at_ms, id)
);
