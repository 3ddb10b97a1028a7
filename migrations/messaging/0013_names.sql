-- Who this service is, written once. Its consumers put the id on their names at the broker, so that another service with a consumer
-- of the same name is refused. It stays the same through failovers and restores. A copy of the rows is the same service; a schema
-- that is migrated anew is another one.
CREATE TABLE service_identity (
  id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  PRIMARY KEY (id)
) ENGINE = InnoDB;

INSERT INTO service_identity (id) VALUES (UUID());

-- The workers of each consumer: a row for each process, which it renews every few seconds. The rows of processes that are gone are
-- deleted by those that are left, so the last one tells since when a consumer has no worker.
CREATE TABLE consumer_workers (
  consumer VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  worker CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  -- Host and process id, for people.
  place VARCHAR(300) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  -- What it handles, what its queues are bound for, and their names, as JSON text.
  definition MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  -- 1 while the consumer's name belongs to another service at the broker: such a worker consumes nothing.
  refused TINYINT UNSIGNED NOT NULL,
  started_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
  -- By the database's clock. A worker that has not renewed it counts as gone.
  lease_until DATETIME(6) NOT NULL,
  PRIMARY KEY (consumer, worker)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- What consumers have bound their queues for. A row stays until somebody removes the binding at the broker, as a new release must
-- not do that by itself: the old one may still run beside it.
CREATE TABLE consumer_bindings (
  consumer VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  -- Exact, as consumers.type is.
  type VARCHAR(128) CHARACTER SET utf8mb4 COLLATE /*!80000 utf8mb4_0900_bin */ /*M!100000 utf8mb4_nopad_bin */ NOT NULL,
  exchange VARCHAR(127) CHARACTER SET utf8mb4 COLLATE /*!80000 utf8mb4_0900_bin */ /*M!100000 utf8mb4_nopad_bin */ NOT NULL,
  routing_key VARCHAR(255) CHARACTER SET utf8mb4 COLLATE /*!80000 utf8mb4_0900_bin */ /*M!100000 utf8mb4_nopad_bin */ NOT NULL,
  -- Since when no worker has it any more; NULL while one has.
  unhandled_since DATETIME(6) NULL,
  PRIMARY KEY (consumer, type, exchange, routing_key)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;
