-- What the fulfilment of orders stands on. Amounts are integers in minor units.

-- A reservation moves quantity from `available` to `reserved`, a release moves it back, and a confirmed order keeps it reserved.
CREATE TABLE stock (
  sku VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  available INT UNSIGNED NOT NULL,
  reserved INT UNSIGNED NOT NULL DEFAULT 0,
  PRIMARY KEY (sku)
) ENGINE = InnoDB;

INSERT INTO stock (sku, available) VALUES
  ('SKU-1', 1000), ('SKU-2', 1000), ('SKU-3', 1000), ('SKU-4', 1000), ('SKU-5', 1000),
  ('SKU-6', 1000), ('SKU-7', 1000), ('SKU-8', 1000), ('SKU-9', 1000), ('SKU-10', 1000),
  ('SKU-11', 1000), ('SKU-12', 1000), ('SKU-13', 1000), ('SKU-14', 1000), ('SKU-15', 1000),
  ('SKU-16', 1000), ('SKU-17', 1000), ('SKU-18', 1000), ('SKU-19', 1000), ('SKU-20', 1000);

-- What became of each order's request for stock: its row makes reserving and releasing happen once, and one that is released
-- before it was reserved tells the reservation that comes late to do nothing.
CREATE TABLE reservations (
  order_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  state ENUM('reserved', 'refused', 'released') NOT NULL,
  created_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
  updated_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
  PRIMARY KEY (order_id)
) ENGINE = InnoDB;

CREATE TABLE reserved_items (
  order_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  sku VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  quantity INT UNSIGNED NOT NULL,
  PRIMARY KEY (order_id, sku)
) ENGINE = InnoDB;

-- One row an order, for the same reasons. `refunded` with amount 0: it was taken back before anything was taken.
CREATE TABLE payments (
  order_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  amount BIGINT UNSIGNED NOT NULL,
  status ENUM('processed', 'declined', 'refunded') NOT NULL,
  created_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
  updated_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
  PRIMARY KEY (order_id)
) ENGINE = InnoDB;

-- The books of the simulated payment gateway, which stands for another company's: nothing of ours reads them, and they are written
-- on connections of their own.
CREATE TABLE gateway_operations (
  idempotency_key VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  kind ENUM('charge', 'refund') NOT NULL,
  amount BIGINT UNSIGNED NOT NULL,
  outcome ENUM('charged', 'declined', 'refunded') NOT NULL,
  created_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
  PRIMARY KEY (idempotency_key)
) ENGINE = InnoDB;
