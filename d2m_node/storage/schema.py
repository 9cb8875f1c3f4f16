"""The tables of the store, and the one way from each version to the next."""

from typing import Final

MIGRATIONS: Final = (
    """
    CREATE TABLE journal (
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (kind, key)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE blob_access (
        digest BLOB NOT NULL,
        audience TEXT NOT NULL,
        job_id INTEGER NOT NULL,
        PRIMARY KEY (digest, audience, job_id)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE transactions (
        position INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        nonce INTEGER NOT NULL,
        raw BLOB NOT NULL,
        transaction_hash BLOB NOT NULL UNIQUE,
        state TEXT NOT NULL
    ) STRICT;
    CREATE INDEX transactions_by_state ON transactions (state, nonce);
    CREATE INDEX transactions_by_key ON transactions (key, state);
    """,
    """
    -- The block of a mined transaction, as long as a reorganisation might drop it.
    ALTER TABLE transactions ADD COLUMN block_number INTEGER;
    ALTER TABLE transactions ADD COLUMN block_hash BLOB;
    """,
    """
    -- What lies in the blob folder. A file without a row is adopted if it has a reference.
    CREATE TABLE blobs (
        digest BLOB NOT NULL PRIMARY KEY,
        size_bytes INTEGER NOT NULL,
        last_use INTEGER NOT NULL -- seconds since 1970
    ) STRICT, WITHOUT ROWID;

    -- What a blob is to a job: who may fetch it, and how long it is kept.
    CREATE TABLE blob_references (
        digest BLOB NOT NULL,
        job_id INTEGER NOT NULL,
        purpose TEXT NOT NULL,
        PRIMARY KEY (digest, job_id, purpose)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX blob_references_by_job ON blob_references (job_id, purpose);

    INSERT INTO blob_references SELECT digest, job_id, CASE audience
        WHEN 'public' THEN CASE job_id WHEN 0 THEN 'own-request' ELSE 'request' END
        WHEN 'participants' THEN 'state'
        ELSE 'update' -- or a part of the validation set, kept as long and for the same peers
    END FROM blob_access;
    INSERT OR IGNORE INTO blob_references
        SELECT value, CAST(key AS INTEGER), 'model' FROM journal WHERE kind = 'model';
    DROP TABLE blob_access;

    -- Jobs that the chain says are over, and the block in which this node saw it first.
    CREATE TABLE jobs_over (
        job_id INTEGER PRIMARY KEY,
        block_number INTEGER NOT NULL
    ) STRICT;

    -- Bytes of the blob folder that were promised to a job before this node entered it.
    CREATE TABLE room_claims (
        job_id INTEGER PRIMARY KEY,
        size_bytes INTEGER NOT NULL
    ) STRICT;
    """,
    """
    -- Jobs that a role turned down or could not go on with: the latest ones.
    CREATE TABLE refusals (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        job_id INTEGER NOT NULL,
        role TEXT NOT NULL,
        code TEXT NOT NULL,
        reason TEXT NOT NULL,
        block_number INTEGER NOT NULL,
        UNIQUE (job_id, role, code)
    ) STRICT;
    """,
    """
    -- Numbers that only grow.
    CREATE TABLE marks (
        name TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    """
    -- What happened at this node, for those who subscribed. Numbers are never used again.
    CREATE TABLE facts (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        job_id INTEGER,
        details BLOB NOT NULL -- JSON
    ) STRICT;
    """,
    """
    -- What the mined transaction of each nonce cost, and the beginning of what it called.
    CREATE TABLE fees (
        nonce INTEGER PRIMARY KEY,
        callee BLOB,
        call_head BLOB NOT NULL,
        fee_wei TEXT NOT NULL -- may exceed 64 bits
    ) STRICT;
    """,
    """
    -- Where this node last reached a peer.
    CREATE TABLE peer_addresses (
        peer_id BLOB NOT NULL PRIMARY KEY,
        multiaddr TEXT NOT NULL,
        reached_at INTEGER NOT NULL -- seconds since 1970
    ) STRICT, WITHOUT ROWID;
    """,
    """
    -- Whom this node talks to no more, and until when.
    CREATE TABLE peer_bans (
        peer_id BLOB NOT NULL PRIMARY KEY,
        reason TEXT NOT NULL,
        ends_at INTEGER NOT NULL -- seconds since 1970
    ) STRICT, WITHOUT ROWID;
    """,
    """
    -- Faults of peers that are not banned, as they weighed when the last one was counted.
    CREATE TABLE peer_penalties (
        peer_id BLOB NOT NULL PRIMARY KEY,
        penalty REAL NOT NULL,
        counted_at INTEGER NOT NULL -- seconds since 1970
    ) STRICT, WITHOUT ROWID;
    """,
    """
    -- A hash that is quicker than the digest; NULL until a blob of an older version is read.
    ALTER TABLE blobs ADD COLUMN quick_check BLOB;
    """,
)
"""Scripts in the order of history; ``user_version`` counts those a file has seen. Only appended
to: a released script is never edited."""
