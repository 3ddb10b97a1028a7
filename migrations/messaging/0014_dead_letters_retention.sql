-- Dead letters that were replayed or discarded are deleted some time after that. The index gives those of one state in the order
-- of their age; neither server copies the table for it, and writers go on.
ALTER TABLE dead_letters ADD KEY dead_letters_handled (state, updated_at);

-- A worker that started before this migration has put the row there, with the time since when it remembers: that time stays.
INSERT INTO retention (name) VALUES ('dead_letters') ON DUPLICATE KEY UPDATE name = name;
