-- The words of messages, for finding them. Each message carries its room as one more word, so that a search reads that room's and no
-- others'. Adding words to each commit would cost a quarter of the messages a second; so they are added later, many at a time, and
-- what is above `indexed` is not here yet.

CREATE VIRTUAL TABLE message_words USING fts5 (
    chat, content,
    content = '', contentless_delete = 1,
    tokenize = "unicode61 remove_diacritics 0 categories 'L* N* Co'"
);

CREATE TABLE message_words_state (indexed INTEGER NOT NULL) STRICT; -- the newest message whose words are here; one row

INSERT INTO message_words_state (indexed) VALUES (0);

-- What changes below that, and answers that end there: until then their words are not here.
CREATE TRIGGER messages_found_anew AFTER UPDATE OF content, status, deleted_at ON messages
WHEN new.status <> 'streaming' AND new.id <= (SELECT indexed FROM message_words_state) BEGIN
    DELETE FROM message_words WHERE rowid = old.id;
    INSERT INTO message_words (rowid, chat, content)
    SELECT new.id, 'c' || new.chat_id, new.content WHERE new.deleted_at IS NULL;
END;

CREATE TRIGGER messages_lost AFTER DELETE ON messages WHEN old.id <= (SELECT indexed FROM message_words_state) BEGIN
    DELETE FROM message_words WHERE rowid = old.id;
END;
