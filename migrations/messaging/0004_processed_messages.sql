-- The inbox: a row per consumer and message that has taken effect, written in the same transaction as the effect.
CREATE TABLE processed_messages (
  consumer VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  -- VARBINARY: collations fold case, accents or trailing spaces, and two ids folded into one are a lost message.
  message_id VARBINARY(255) NOT NULL,
  processed_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
  PRIMARY KEY (consumer, message_id),
  KEY processed_messages_age (processed_at)
) ENGINE = InnoDB;
