-- Messages that a consumer, or the broker on its behalf, has given up: moved here from the consumer's dead queue, so that
-- listing, grouping, editing and replaying are SQL and no message is held hostage by a reader.
CREATE TABLE dead_letters (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  consumer VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  -- NULL for a message that came without one. Binary for the reason given at processed_messages.
  message_id VARBINARY(255) NULL,
  type VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
  version INT UNSIGNED NULL,
  -- The key it was first published with.
  routing_key VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  -- AMQP properties and headers as JSON text: what a replay sends again.
  properties MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  body LONGBLOB NOT NULL,
  -- In words without personal data: a code, or what the broker says.
  reason VARCHAR(500) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  error_class VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
  attempts INT UNSIGNED NOT NULL,
  first_failed_at DATETIME(6) NULL,
  last_failed_at DATETIME(6) NULL,
  -- When the message was written into its outbox, where its headers say so.
  occurred_at DATETIME(6) NULL,
  -- `replay` asks the worker to send it to its consumer again; the worker then says `replayed`.
  state ENUM('dead', 'replay', 'replayed', 'discarded') NOT NULL DEFAULT 'dead',
  created_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
  updated_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
  -- SHA-256 of the copy in the dead queue: a worker that dies between its insert and its ack gets the same copy again.
  copy_hash BINARY(32) NOT NULL,
  PRIMARY KEY (id),
  UNIQUE KEY dead_letters_copy (consumer, copy_hash),
  KEY dead_letters_state (state, consumer, id),
  KEY dead_letters_message (message_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;
