-- The held rows of the outbox, with the indexes that only they need: MySQL has no partial index, and these two on the outbox
-- itself would be paid by every message. Empty while nothing fails.
CREATE TABLE outbox_waiting (
  seq BIGINT UNSIGNED NOT NULL,
  partition_id TINYINT UNSIGNED NOT NULL,
  aggregatetype VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  aggregateid VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  -- When to try again. NULL waits for the key's head, however long that takes.
  due_at DATETIME(6) NULL,
  PRIMARY KEY (seq),
  -- What is due in the partitions that a pass holds.
  KEY outbox_waiting_due (partition_id, due_at),
  -- Whether a key is blocked, and what may go once its head has gone.
  KEY outbox_waiting_key (aggregateid, aggregatetype, seq)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;
