CREATE TABLE customers (
  -- UUIDv7, made by the api: new rows go to the end of the primary key.
  id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  -- As its owner writes it.
  email VARCHAR(254) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  -- What makes two addresses the same: case does not tell them apart, accents and trailing spaces do. A unique key on a
  -- case-insensitive collation would fold those as well (jose@ and josé@ are two people), and the collations that would not
  -- have other names in MySQL and MariaDB. Bytes are exact in both. Generated, so that no writer can forget it.
  email_key VARBINARY(1016) AS (LOWER(email)) STORED,
  name VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  -- One more with each change: the ETag, and what lets a reader of the messages drop the older of two.
  version INT UNSIGNED NOT NULL DEFAULT 1,
  created_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
  updated_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
  PRIMARY KEY (id),
  UNIQUE KEY customers_email (email_key),
  CONSTRAINT customers_version CHECK (version >= 1),
  CONSTRAINT customers_email_given CHECK (CHAR_LENGTH(email) > 0),
  CONSTRAINT customers_name_given CHECK (CHAR_LENGTH(name) > 0)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;
