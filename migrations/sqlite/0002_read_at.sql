-- When a member's read mark last moved; nothing until it does.
ALTER TABLE chat_participants ADD COLUMN read_at INTEGER;
