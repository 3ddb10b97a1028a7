-- Two keys are one key exactly if their bytes are equal. utf8mb4_bin ignores trailing spaces, so of
-- `SKU7` and `SKU7 ` this table made one key, and the rest of Oncebox makes two. The collation that
-- compares all of the bytes has another name in each server: MySQL runs what stands in /*!80000 and
-- MariaDB what stands in /*M!100000.
--
-- `outbox` keeps its collation: partition_id is generated from its aggregateid, and MySQL would
-- copy the table, with every writer waiting. Nothing compares its keys in SQL. VARBINARY would
-- compare bytes too, and change-data-capture would then give the key as base64.
--
-- A relay of an earlier release works with either collation: it compares these columns with values
-- only.
ALTER TABLE outbox_waiting
  MODIFY aggregatetype VARCHAR(128) CHARACTER SET utf8mb4 COLLATE /*!80000 utf8mb4_0900_bin */ /*M!100000 utf8mb4_nopad_bin */ NOT NULL,
  MODIFY aggregateid VARCHAR(255) CHARACTER SET utf8mb4 COLLATE /*!80000 utf8mb4_0900_bin */ /*M!100000 utf8mb4_nopad_bin */ NOT NULL;

ALTER TABLE consumers
  MODIFY type VARCHAR(128) CHARACTER SET utf8mb4 COLLATE /*!80000 utf8mb4_0900_bin */ /*M!100000 utf8mb4_nopad_bin */ NOT NULL;
