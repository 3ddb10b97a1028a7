-- What an ordered consumer has in hand of keys that wait behind a failure: the message that failed and all that came after it, in
-- the order of seq. A key is held while it has rows here.
CREATE TABLE held_messages (
  seq BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  consumer VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  -- The aggregate's id. Binary, as message_id is, for the reason given at processed_messages.
  ordering_key VARBINARY(1020) NOT NULL,
  message_id VARBINARY(255) NOT NULL,
  routing_key VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  -- AMQP properties and headers as JSON text.
  properties MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  body LONGBLOB NOT NULL,
  created_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
  PRIMARY KEY (seq),
  -- A worker that dies between its commit and its ack gets the same message again.
  UNIQUE KEY held_messages_message (consumer, message_id),
  KEY held_messages_key (consumer, ordering_key, seq)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- When the first message of such a key is tried again. The lock on a row is the right to handle that key.
CREATE TABLE held_keys (
  consumer VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  ordering_key VARBINARY(1020) NOT NULL,
  -- NULL while it waits for an operator: dead_letter then says for which decision.
  due_at DATETIME(6) NULL,
  -- At its first message.
  attempts INT UNSIGNED NOT NULL DEFAULT 0,
  -- How many processes have begun with that one and not come to an end with it: they crashed.
  begun INT UNSIGNED NOT NULL DEFAULT 0,
  first_failed_at DATETIME(6) NULL,
  dead_letter BIGINT UNSIGNED NULL,
  PRIMARY KEY (consumer, ordering_key),
  KEY held_keys_due (consumer, due_at),
  KEY held_keys_dead (consumer, dead_letter)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;
