-- Price books of providers, and the carbon of regions. The prices of single nodes that nobody wrote go.

DROP TABLE prices;

CREATE TABLE price_books (
    provider TEXT PRIMARY KEY,          -- hex of the provider root's hash
    revision BIGINT NOT NULL,           -- counts changes, from 1
    changed_ms BIGINT NOT NULL,
    changed_by TEXT NOT NULL            -- a key's id
);

CREATE TABLE price_entries (
    provider TEXT NOT NULL REFERENCES price_books (provider),
    ordinal BIGINT NOT NULL,
    rate TEXT NOT NULL,                 -- core-hour, ucu-hour, egress-gb
    region TEXT NOT NULL,               -- a glob
    target TEXT NOT NULL,               -- a glob: class of device, or the region that bytes go to
    price_usd_micros BIGINT NOT NULL,
    since_ms BIGINT NOT NULL,
    until_ms BIGINT NOT NULL,           -- 0: open
    PRIMARY KEY (provider, ordinal)
);

CREATE TABLE carbon (
    region TEXT NOT NULL,
    hour_ms BIGINT NOT NULL,            -- its begin; -1: every hour without a row of its own
    mg_kwh BIGINT NOT NULL,             -- thousandths of a gram of CO2e for a kilowatt-hour
    PRIMARY KEY (region, hour_ms)
);

CREATE TABLE carbon_feeds (
    name TEXT PRIMARY KEY,              -- carbon
    source TEXT NOT NULL,               -- file or URL that the rows are from
    fetched_ms BIGINT NOT NULL
);
