CREATE TABLE products (
  sku VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  name VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  -- In minor units.
  price INT UNSIGNED NOT NULL,
  PRIMARY KEY (sku),
  -- With the most that an order may contain, a total that JSON can carry.
  CONSTRAINT products_price CHECK (price <= 100000000)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

INSERT INTO products (sku, name, price) VALUES
  ('SKU-1', 'Product 1', 249),
  ('SKU-2', 'Product 2', 499),
  ('SKU-3', 'Product 3', 749),
  ('SKU-4', 'Product 4', 999),
  ('SKU-5', 'Product 5', 1249),
  ('SKU-6', 'Product 6', 1499),
  ('SKU-7', 'Product 7', 1749),
  ('SKU-8', 'Product 8', 1999),
  ('SKU-9', 'Product 9', 2249),
  ('SKU-10', 'Product 10', 2499),
  ('SKU-11', 'Product 11', 2749),
  ('SKU-12', 'Product 12', 2999),
  ('SKU-13', 'Product 13', 3249),
  ('SKU-14', 'Product 14', 3499),
  ('SKU-15', 'Product 15', 3749),
  ('SKU-16', 'Product 16', 3999),
  ('SKU-17', 'Product 17', 4249),
  ('SKU-18', 'Product 18', 4499),
  ('SKU-19', 'Product 19', 4749),
  ('SKU-20', 'Product 20', 4999);

-- A projection of the streams of category `order`: it holds nothing that the events do not, and `oncebox projection rebuild` makes it anew.
CREATE TABLE orders (
  -- UUIDv7, made by the api: new rows go to the end of the primary key.
  id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  customer_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  status ENUM('placed', 'confirmed', 'rejected') NOT NULL,
  -- Of a rejected order.
  reason VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
  process ENUM('choreography', 'orchestration') NOT NULL,
  -- In minor units.
  total_amount BIGINT UNSIGNED NOT NULL,
  -- Of the stream, when this was written.
  version INT UNSIGNED NOT NULL,
  placed_at DATETIME(6) NOT NULL,
  updated_at DATETIME(6) NOT NULL,
  PRIMARY KEY (id),
  KEY orders_customer (customer_id),
  KEY orders_status (status, updated_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;
