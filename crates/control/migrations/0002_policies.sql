-- Which policies were put in force, without their texts: those are in the log's row of the same revision, and may be large.
CREATE TABLE policies (
    tailnet  INTEGER NOT NULL REFERENCES tailnet (tailnet),
    revision INTEGER NOT NULL,
    version  INTEGER NOT NULL,
    who      TEXT    NOT NULL,
    why      TEXT    NOT NULL,
    at       TEXT    NOT NULL,
    PRIMARY KEY (tailnet, revision)
) STRICT, WITHOUT ROWID;

INSERT INTO policies (tailnet, revision, version, who, why, at)
SELECT log.tailnet,
       log.revision,
       json_extract(change.value, '$."put-policy".version'),
       json_extract(change.value, '$."put-policy".who'),
       json_extract(change.value, '$."put-policy".why'),
       json_extract(change.value, '$."put-policy".when')
FROM log, json_each(log.changes) AS change
WHERE log.command = 'SetPolicy' AND json_extract(change.value, '$."put-policy"') IS NOT NULL;
