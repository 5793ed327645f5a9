-- Gemini Coop on SQLite. Times are milliseconds since 1970. Ids are never given twice, also after a deletion: that is
-- what AUTOINCREMENT is for. Room tables know no `users`: an application may keep its users elsewhere.

PRAGMA application_id = 1131376496; -- "Coop": how a file is known to be ours

CREATE TABLE users (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    username TEXT NOT NULL UNIQUE,
    email TEXT,
    email_key TEXT UNIQUE, -- the address in lower case: SQLite's lower() knows ASCII only
    password_hash TEXT,
    token_version INTEGER NOT NULL DEFAULT 0, -- tokens of another version are no longer good
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE chats (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    owner_id INTEGER NOT NULL,
    is_group INTEGER NOT NULL,
    is_ai_chat INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    epoch INTEGER NOT NULL, -- which life of the log
    last_seq INTEGER NOT NULL, -- the newest event
    last_number INTEGER NOT NULL, -- how many messages there ever were
    member_count INTEGER NOT NULL
) STRICT;

CREATE TABLE chat_participants (
    chat_id INTEGER NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    user_id INTEGER NOT NULL,
    username TEXT NOT NULL,
    role TEXT NOT NULL,
    joined_at INTEGER NOT NULL,
    joined_seq INTEGER NOT NULL,
    read_seq INTEGER NOT NULL,
    read_number INTEGER NOT NULL, -- the last message at or below read_seq
    discount INTEGER NOT NULL, -- messages above it that do not count as unread
    PRIMARY KEY (chat_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX chat_participants_of_user ON chat_participants (user_id);

CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    chat_id INTEGER NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    number INTEGER NOT NULL, -- 1, 2, 3 … in its room
    seq INTEGER NOT NULL, -- where in the log it appeared
    user_id INTEGER, -- the author, if it was a person
    bot TEXT, -- the author's handle, if it was a bot
    author_name TEXT NOT NULL,
    content TEXT NOT NULL,
    status TEXT NOT NULL,
    error TEXT,
    reply_to INTEGER,
    meta TEXT,
    client_id TEXT,
    body_hash BLOB, -- of what was first sent
    created_at INTEGER NOT NULL,
    edited_at INTEGER,
    deleted_at INTEGER
) STRICT;

CREATE UNIQUE INDEX messages_in_order ON messages (chat_id, seq);

CREATE UNIQUE INDEX messages_by_client_id ON messages (chat_id, user_id, client_id) WHERE client_id IS NOT NULL;

-- Messages that may not count as unread for somebody.
CREATE INDEX messages_quiet ON messages (chat_id, number) WHERE deleted_at IS NOT NULL OR bot IS NOT NULL;

CREATE TABLE turns (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    chat_id INTEGER NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    bot TEXT NOT NULL,
    asked_by INTEGER NOT NULL,
    asker_name TEXT NOT NULL,
    ask_id INTEGER NOT NULL, -- the message that asked
    ask_seq INTEGER NOT NULL,
    message_id INTEGER, -- the answer, once it has begun
    status TEXT NOT NULL,
    ending TEXT, -- how it ended, as JSON
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX turns_in_chat ON turns (chat_id);

CREATE INDEX turns_open ON turns (chat_id, id) WHERE status IN ('queued', 'streaming');

CREATE INDEX turns_by_ask ON turns (ask_id);

CREATE INDEX turns_by_message ON turns (message_id) WHERE message_id IS NOT NULL;

-- The log: which rows an event is about, never what they held.
CREATE TABLE events (
    chat_id INTEGER NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL,
    message_id INTEGER,
    turn_id INTEGER,
    user_id INTEGER,
    by_id INTEGER,
    name TEXT,
    position INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (chat_id, seq)
) STRICT, WITHOUT ROWID;
