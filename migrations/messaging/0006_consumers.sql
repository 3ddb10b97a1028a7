-- Which consumers of this schema handle which messages, and since when: a worker writes it once its queue is bound. From here
-- `oncebox verify` knows who should have handled a message.
CREATE TABLE consumers (
  consumer VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  type VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  -- Messages written before this are not expected: the queue may not have been bound.
  since DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
  PRIMARY KEY (consumer, type)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;
