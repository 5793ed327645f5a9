-- The words of messages, for finding them: complete ones alone, so that an answer that grows is not read again and again. Each
-- carries its room as one more word, so that a search reads that room's and no others'.

-- Punctuation only divides words: without this, the parser would find hosts, paths and numbers with signs. A text's beginning has
-- to do, because a vector has an end.
CREATE FUNCTION message_words(chat bigint, content text) RETURNS tsvector LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    to_tsvector(
        'pg_catalog.simple'::regconfig,
        'c' || chat::text || ' '
            || translate(left(content, 100000), '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', '                                ')
    );

CREATE INDEX messages_found ON messages USING gin (message_words(chat_id, content))
WHERE status <> 'streaming' AND deleted_at IS NULL;
