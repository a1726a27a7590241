-- What keeps the order of decisions, apart from the log: the log has a row for what somebody did, not for every decision,
-- and its oldest rows go.

-- The number of each tailnet's last decision. The next one has the number after it, or is refused.
CREATE TABLE revisions (
    tailnet  INTEGER NOT NULL REFERENCES tailnet (tailnet),
    revision INTEGER NOT NULL CHECK (revision > 0),
    PRIMARY KEY (tailnet)
) STRICT, WITHOUT ROWID;

INSERT INTO revisions (tailnet, revision) SELECT tailnet, max(revision) FROM log GROUP BY tailnet;

-- The texts of the policies that were put in force; the history keeps the newest.
CREATE TABLE policy_texts (
    tailnet  INTEGER NOT NULL REFERENCES tailnet (tailnet),
    revision INTEGER NOT NULL,
    text     TEXT    NOT NULL,
    PRIMARY KEY (tailnet, revision)
) STRICT;

INSERT OR REPLACE INTO policy_texts (tailnet, revision, text)
SELECT log.tailnet, log.revision, json_extract(change.value, '$."put-policy".text')
FROM policies
     JOIN log ON log.tailnet = policies.tailnet AND log.revision = policies.revision,
     json_each(log.changes) AS change
WHERE json_extract(change.value, '$."put-policy".text') IS NOT NULL;

DROP TRIGGER log_rows_stay;
DROP TRIGGER log_rows_stay_the_same;

-- A device that says something new of itself did nothing, and could fill the disk with it.
DELETE FROM log WHERE command = 'UpdateHost';

UPDATE log
SET changes = (
    SELECT json_group_array(json_remove(change.value, '$."put-node".hostinfo', '$."put-policy".text'))
    FROM json_each(log.changes) AS change
)
WHERE instr(changes, '"put-node"') > 0 OR instr(changes, '"put-policy"') > 0;

CREATE TRIGGER log_rows_stay_the_same BEFORE UPDATE ON log
BEGIN
    SELECT RAISE(ABORT, 'a row of the log says what it said');
END;
