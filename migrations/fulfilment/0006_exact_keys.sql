-- Two ids are one saga exactly if their bytes are equal, and likewise SKUs and the keys of others:
-- utf8mb4_bin and ascii_bin ignore trailing spaces (see 0011_exact_keys.sql of the messaging set).
-- MySQL has no ASCII collation that compares them, so there the columns are utf8mb4.
--
-- A column of a foreign key cannot change its collation, so the key goes first and comes back last.
-- A worker may delete ended sagas meanwhile, whose history would then keep the key from coming
-- back.
ALTER TABLE saga_history DROP FOREIGN KEY saga_history_of;

ALTER TABLE sagas
  MODIFY id VARCHAR(255) CHARACTER SET utf8mb4 COLLATE /*!80000 utf8mb4_0900_bin */ /*M!100000 utf8mb4_nopad_bin */ NOT NULL;

ALTER TABLE saga_history
  MODIFY id VARCHAR(255) CHARACTER SET utf8mb4 COLLATE /*!80000 utf8mb4_0900_bin */ /*M!100000 utf8mb4_nopad_bin */ NOT NULL;

DELETE FROM saga_history WHERE NOT EXISTS (SELECT 1 FROM sagas WHERE sagas.name = saga_history.name AND sagas.id = saga_history.id);

ALTER TABLE saga_history
  ADD CONSTRAINT saga_history_of FOREIGN KEY (name, id) REFERENCES sagas (name, id) ON DELETE CASCADE;

ALTER TABLE emails
  MODIFY message_id VARCHAR(255) CHARACTER SET utf8mb4 COLLATE /*!80000 utf8mb4_0900_bin */ /*M!100000 utf8mb4_nopad_bin */ NOT NULL;

ALTER TABLE stock
  MODIFY sku VARCHAR(64) CHARACTER SET /*!80000 utf8mb4 COLLATE utf8mb4_0900_bin */ /*M!100000 ascii COLLATE ascii_nopad_bin */ NOT NULL;

ALTER TABLE reserved_items
  MODIFY sku VARCHAR(64) CHARACTER SET /*!80000 utf8mb4 COLLATE utf8mb4_0900_bin */ /*M!100000 ascii COLLATE ascii_nopad_bin */ NOT NULL;

ALTER TABLE sales
  MODIFY sku VARCHAR(64) CHARACTER SET /*!80000 utf8mb4 COLLATE utf8mb4_0900_bin */ /*M!100000 ascii COLLATE ascii_nopad_bin */ NOT NULL;

ALTER TABLE gateway_operations
  MODIFY idempotency_key VARCHAR(255) CHARACTER SET /*!80000 utf8mb4 COLLATE utf8mb4_0900_bin */ /*M!100000 ascii COLLATE ascii_nopad_bin */ NOT NULL;
