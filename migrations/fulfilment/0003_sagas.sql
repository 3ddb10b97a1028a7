-- The tables of @oncebox/saga: a service that runs sagas has them in its own schema, so that a saga's state, the answer that changes
-- it and the next command are one transaction.
CREATE TABLE sagas (
  name VARCHAR(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  id VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  data MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  -- Of the message that started it, as in outbox.headers: what a time-out sends belongs to the same chain.
  lineage TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  state ENUM('running', 'stuck', 'completed', 'compensated') NOT NULL,
  direction ENUM('forward', 'back') NOT NULL,
  -- The step whose answer is awaited; of a saga that has ended, its last one.
  step VARCHAR(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  -- How often that step's command has been sent.
  attempts INT UNSIGNED NOT NULL,
  -- Why it turned back.
  reason VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
  -- Why it is stuck.
  problem VARCHAR(500) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
  -- When it stops waiting for the answer; NULL when only an answer or an operator moves it on, or nothing does.
  due_at DATETIME(6) NULL,
  created_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
  updated_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
  ended_at DATETIME(6) NULL,
  PRIMARY KEY (name, id),
  KEY sagas_due (due_at),
  KEY sagas_state (state, updated_at),
  -- For retention, which never sees one that has not ended.
  KEY sagas_ended (ended_at),
  CONSTRAINT sagas_problem CHECK ((state = 'stuck') = (problem IS NOT NULL)),
  CONSTRAINT sagas_end CHECK ((state IN ('completed', 'compensated')) = (ended_at IS NOT NULL)),
  CONSTRAINT sagas_wait CHECK ((state = 'running') = (due_at IS NOT NULL))
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- What happened to each saga, for people.
CREATE TABLE saga_history (
  seq BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  name VARCHAR(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  id VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  happened VARCHAR(500) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  created_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
  PRIMARY KEY (seq),
  KEY saga_history_saga (name, id, seq),
  CONSTRAINT saga_history_of FOREIGN KEY (name, id) REFERENCES sagas (name, id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

INSERT INTO retention (name) VALUES ('sagas');
