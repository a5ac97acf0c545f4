-- What every server on this database must have alike, by which one that has not is told at its start.

CREATE TABLE marks (
    name TEXT PRIMARY KEY,              -- pepper, ca
    mark BYTEA NOT NULL                 -- a hash; of the pepper, one keyed with it
);
