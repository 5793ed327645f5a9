-- Tokens that carry another version of their user are no longer good.

ALTER TABLE users ADD COLUMN token_version INTEGER NOT NULL DEFAULT 0;
