-- One row for each of the sixteen partitions of ordering keys; its row lock is the lease on the partition. Whoever holds the
-- lock publishes for it, so no key is ever sent by two. A crash frees it with the session: no lease columns, no clocks.
CREATE TABLE outbox_partition (
  partition_id TINYINT UNSIGNED NOT NULL,
  PRIMARY KEY (partition_id),
  CONSTRAINT outbox_partition_id CHECK (partition_id < 16)
) ENGINE = InnoDB;

INSERT INTO outbox_partition (partition_id)
VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9), (10), (11), (12), (13), (14), (15);
