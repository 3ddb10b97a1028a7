-- Payloads over the limit of a contract that says claim-check, each written in the transaction of its message. The message has their
-- id, size and SHA-256 in their place, and its consumers fetch them from the service over HTTP.
CREATE TABLE claimed_payloads (
  -- The message's.
  id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  -- Exact text, as in the outbox.
  payload MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  created_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
  PRIMARY KEY (id),
  KEY claimed_payloads_age (created_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

INSERT INTO retention (name) VALUES ('claimed_payloads');
