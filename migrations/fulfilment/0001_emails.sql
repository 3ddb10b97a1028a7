-- What the welcome-email consumer has sent: here a row stands for the e-mail.
CREATE TABLE emails (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  -- Which message it answers. Not unique on purpose: that each message takes effect once is the inbox's guarantee, and a
  -- unique key here would turn a broken one into an error and a retry, where everybody should see two rows.
  message_id VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  customer_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  recipient VARCHAR(254) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  subject VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  body TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  created_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
  PRIMARY KEY (id),
  KEY emails_message (message_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;
