-- The words of messages, for finding them: complete ones alone, so that an answer that grows is not read again and again. Each
-- carries its room as one more word, so that a search reads that room's and no others'.

CREATE VIRTUAL TABLE message_words USING fts5 (
    chat, content,
    content = '', contentless_delete = 1,
    tokenize = "unicode61 remove_diacritics 0 categories 'L* N* Co'"
);

INSERT INTO message_words (rowid, chat, content)
SELECT id, 'c' || chat_id, content FROM messages WHERE status <> 'streaming' AND deleted_at IS NULL;

CREATE TRIGGER messages_found AFTER INSERT ON messages WHEN new.status <> 'streaming' AND new.deleted_at IS NULL BEGIN
    INSERT INTO message_words (rowid, chat, content) VALUES (new.id, 'c' || new.chat_id, new.content);
END;

CREATE TRIGGER messages_found_anew AFTER UPDATE OF content, status, deleted_at ON messages WHEN new.status <> 'streaming' BEGIN
    DELETE FROM message_words WHERE rowid = old.id;
    INSERT INTO message_words (rowid, chat, content)
    SELECT new.id, 'c' || new.chat_id, new.content WHERE new.deleted_at IS NULL;
END;

CREATE TRIGGER messages_lost AFTER DELETE ON messages BEGIN
    DELETE FROM message_words WHERE rowid = old.id;
END;
