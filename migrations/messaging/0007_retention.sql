-- One row for each table that forgets its old rows: the lock of its one cleaner, and how far back the table remembers.
-- Before `forgotten_before`, a missing row proves nothing.
CREATE TABLE retention (
  name VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  forgotten_before DATETIME(6) NULL,
  PRIMARY KEY (name)
) ENGINE = InnoDB;

INSERT INTO retention (name) VALUES ('processed_messages');

-- The outbox is cleaned partition by partition, under the partition's own lock.
ALTER TABLE outbox_partition ADD COLUMN forgotten_before DATETIME(6) NULL;
