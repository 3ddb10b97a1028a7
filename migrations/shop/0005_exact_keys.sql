-- Two ids are one stream exactly if their bytes are equal: ascii_bin ignores trailing spaces (see
-- 0011_exact_keys.sql of the messaging set). MySQL has no ASCII collation that compares them, so
-- there the columns are utf8mb4. Both servers copy the tables, as the columns belong to their
-- primary keys: writers of events wait meanwhile.
--
-- `events` first: as long as event_streams ignores trailing spaces, no second stream can begin
-- whose events would meet those of another.
ALTER TABLE events
  MODIFY stream_id VARCHAR(128) CHARACTER SET /*!80000 utf8mb4 COLLATE utf8mb4_0900_bin */ /*M!100000 ascii COLLATE ascii_nopad_bin */ NOT NULL;

ALTER TABLE snapshots
  MODIFY stream_id VARCHAR(128) CHARACTER SET /*!80000 utf8mb4 COLLATE utf8mb4_0900_bin */ /*M!100000 ascii COLLATE ascii_nopad_bin */ NOT NULL;

ALTER TABLE event_streams
  MODIFY id VARCHAR(128) CHARACTER SET /*!80000 utf8mb4 COLLATE utf8mb4_0900_bin */ /*M!100000 ascii COLLATE ascii_nopad_bin */ NOT NULL;

ALTER TABLE projection_rebuilds
  MODIFY after_id VARCHAR(128) CHARACTER SET /*!80000 utf8mb4 COLLATE utf8mb4_0900_bin */ /*M!100000 ascii COLLATE ascii_nopad_bin */ NOT NULL DEFAULT '';
