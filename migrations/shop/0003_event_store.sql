-- What @oncebox/event-store stands on. Append-only: nothing here updates or deletes an event.
--
-- The head of each stream: what its writers compare and lock. Without it they would meet at the primary key of `events`, where a stream
-- that is to be locked before it is read has no row of its own.
CREATE TABLE event_streams (
  category VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  id VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  -- Of its last event.
  version INT UNSIGNED NOT NULL,
  PRIMARY KEY (category, id),
  CONSTRAINT event_streams_version CHECK (version >= 1)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

CREATE TABLE events (
  category VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  stream_id VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  -- From 1 without gaps: the order of a stream, and the order of the primary key.
  version INT UNSIGNED NOT NULL,
  type VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  -- JSON text. Not a JSON column: that re-orders keys and rounds numbers, and a replay must read what was written.
  data MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  -- As in outbox.headers: JSON text of the correlation and causation ids and of the trace context.
  lineage TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
  occurred_at DATETIME(6) NOT NULL,
  PRIMARY KEY (category, stream_id, version)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- A cache: states at some version. May be emptied at any time.
CREATE TABLE snapshots (
  category VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  stream_id VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  -- The code's number for what a state looks like; another one is not read.
  shape INT UNSIGNED NOT NULL,
  version INT UNSIGNED NOT NULL,
  state MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  PRIMARY KEY (category, stream_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- How far the last rebuild of each projection has come, so that one that was cut short goes on.
CREATE TABLE projection_rebuilds (
  name VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  -- The last stream whose row is written.
  after_id VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
  done INT UNSIGNED NOT NULL DEFAULT 0,
  total INT UNSIGNED NOT NULL,
  removed INT UNSIGNED NOT NULL DEFAULT 0,
  started_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
  finished_at DATETIME(6) NULL,
  PRIMARY KEY (name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;
