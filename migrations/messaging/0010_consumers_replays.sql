-- What `oncebox replay` must know of a consumer: whether it takes messages of this type that are sent again from the log, and whether
-- its queue is one or, being ordered, several. Its worker writes both with each start.
ALTER TABLE consumers
  ADD COLUMN replays TINYINT(1) NOT NULL DEFAULT 0,
  ADD COLUMN ordered TINYINT(1) NOT NULL DEFAULT 0;
