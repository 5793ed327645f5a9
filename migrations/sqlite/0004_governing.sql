-- Rooms that their owners govern, turns that are tried again and ask each other, and what they use.

ALTER TABLE chats ADD COLUMN settings TEXT; -- what the owner has set, as JSON; nothing until then

ALTER TABLE messages ADD COLUMN edits INTEGER NOT NULL DEFAULT 0; -- how often it was changed

UPDATE messages SET edits = 1 WHERE edited_at IS NOT NULL;

ALTER TABLE turns ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1;

ALTER TABLE turns ADD COLUMN hop INTEGER NOT NULL DEFAULT 0; -- how many bots lie between it and the person who spoke

ALTER TABLE turns ADD COLUMN tokens TEXT; -- what it has used so far, as JSON

ALTER TABLE turns ADD COLUMN receipt TEXT; -- what its bot has read, as JSON

DROP INDEX turns_in_chat;

CREATE INDEX turns_in_chat ON turns (chat_id, ask_seq);

-- Tokens used, by day (UTC, counted from 1970). Outlives its room, or deleting one would give a budget back.
CREATE TABLE usage (
    user_id INTEGER NOT NULL, -- who asked
    day INTEGER NOT NULL,
    chat_id INTEGER NOT NULL,
    bot TEXT NOT NULL,
    turns INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    total INTEGER NOT NULL,
    PRIMARY KEY (user_id, day, chat_id, bot)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_in_chat ON usage (chat_id, day);
