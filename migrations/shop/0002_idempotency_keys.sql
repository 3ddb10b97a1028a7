-- Requests that named an Idempotency-Key, each written in the transaction of its effect: both are there or neither is.
CREATE TABLE idempotency_keys (
  -- Bytes, so that keys which differ by case, accent or trailing space are different keys.
  idempotency_key VARBINARY(255) NOT NULL,
  -- SHA-256 of method, path and body: the same key with another request is the client's mistake.
  request_hash BINARY(32) NOT NULL,
  status SMALLINT UNSIGNED NOT NULL,
  -- The response as it was sent, to be sent again: its headers as JSON text, and its body.
  response_headers TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  response_body MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  created_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
  PRIMARY KEY (idempotency_key),
  KEY idempotency_keys_age (created_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

INSERT INTO retention (name) VALUES ('idempotency_keys');
