-- What each tailnet is now: one row per thing, the thing itself as JSON. The table names are those of `tailnet::Table`.
-- A tailnet is what its rows say; the server reads them all when it starts.

CREATE TABLE tailnet (
    tailnet  INTEGER NOT NULL,
    key      TEXT    NOT NULL CHECK (key = ''),
    document TEXT    NOT NULL CHECK (json_valid(document)),
    PRIMARY KEY (tailnet)
) STRICT, WITHOUT ROWID;

CREATE TABLE numbers (
    tailnet  INTEGER NOT NULL REFERENCES tailnet (tailnet),
    key      TEXT    NOT NULL CHECK (key = ''),
    document TEXT    NOT NULL CHECK (json_valid(document)),
    PRIMARY KEY (tailnet, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE settings (
    tailnet  INTEGER NOT NULL REFERENCES tailnet (tailnet),
    key      TEXT    NOT NULL CHECK (key = ''),
    document TEXT    NOT NULL CHECK (json_valid(document)),
    PRIMARY KEY (tailnet, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE dns (
    tailnet  INTEGER NOT NULL REFERENCES tailnet (tailnet),
    key      TEXT    NOT NULL CHECK (key = ''),
    document TEXT    NOT NULL CHECK (json_valid(document)),
    PRIMARY KEY (tailnet, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE policy (
    tailnet  INTEGER NOT NULL REFERENCES tailnet (tailnet),
    key      TEXT    NOT NULL CHECK (key = ''),
    document TEXT    NOT NULL CHECK (json_valid(document)),
    PRIMARY KEY (tailnet, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
    tailnet  INTEGER NOT NULL REFERENCES tailnet (tailnet),
    key      TEXT    NOT NULL,
    document TEXT    NOT NULL CHECK (json_valid(document)),
    PRIMARY KEY (tailnet, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE nodes (
    tailnet  INTEGER NOT NULL REFERENCES tailnet (tailnet),
    key      TEXT    NOT NULL,
    document TEXT    NOT NULL CHECK (json_valid(document)),
    PRIMARY KEY (tailnet, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE auth_keys (
    tailnet  INTEGER NOT NULL REFERENCES tailnet (tailnet),
    key      TEXT    NOT NULL,
    document TEXT    NOT NULL CHECK (json_valid(document)),
    PRIMARY KEY (tailnet, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE oauth_clients (
    tailnet  INTEGER NOT NULL REFERENCES tailnet (tailnet),
    key      TEXT    NOT NULL,
    document TEXT    NOT NULL CHECK (json_valid(document)),
    PRIMARY KEY (tailnet, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE api_tokens (
    tailnet  INTEGER NOT NULL REFERENCES tailnet (tailnet),
    key      TEXT    NOT NULL,
    document TEXT    NOT NULL CHECK (json_valid(document)),
    PRIMARY KEY (tailnet, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE services (
    tailnet  INTEGER NOT NULL REFERENCES tailnet (tailnet),
    key      TEXT    NOT NULL,
    document TEXT    NOT NULL CHECK (json_valid(document)),
    PRIMARY KEY (tailnet, key)
) STRICT, WITHOUT ROWID;

-- Two devices of the server can't have one address or one key, whatever the server believes.
CREATE UNIQUE INDEX node_addresses ON nodes (json_extract(document, '$.addresses.v4'));
CREATE UNIQUE INDEX node_keys ON nodes (json_extract(document, '$.node_key'));

-- Every decision that changed something, in order: who decided what, and when. Nothing is ever changed or taken out.
-- The number is the revision that the decision led to; a second decision for the same revision is refused.
CREATE TABLE log (
    tailnet  INTEGER NOT NULL REFERENCES tailnet (tailnet),
    revision INTEGER NOT NULL CHECK (revision > 0),
    at       TEXT    NOT NULL,
    actor    TEXT    NOT NULL,
    command  TEXT    NOT NULL,
    changes  TEXT    NOT NULL CHECK (json_valid(changes)),
    PRIMARY KEY (tailnet, revision)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER log_rows_stay BEFORE DELETE ON log
BEGIN
    SELECT RAISE(ABORT, 'the log is append-only');
END;

CREATE TRIGGER log_rows_stay_the_same BEFORE UPDATE ON log
BEGIN
    SELECT RAISE(ABORT, 'the log is append-only');
END;

-- Where devices were last seen. Written now and then, not with every change: a restart may find it some seconds old.
CREATE TABLE presence (
    tailnet  INTEGER NOT NULL REFERENCES tailnet (tailnet),
    node     INTEGER NOT NULL,
    document TEXT    NOT NULL CHECK (json_valid(document)),
    PRIMARY KEY (tailnet, node)
) STRICT, WITHOUT ROWID;

-- Who is signed in with a browser: the hash of the cookie, never the cookie.
CREATE TABLE sessions (
    hash     TEXT    NOT NULL PRIMARY KEY,
    tailnet  INTEGER NOT NULL REFERENCES tailnet (tailnet),
    user     INTEGER NOT NULL,
    expires  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
