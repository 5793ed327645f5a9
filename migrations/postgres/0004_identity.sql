-- What tells this database from every other, in one row: servers on it find each other by this where they meet servers of others.
CREATE TABLE identity (
    one BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one),
    id UUID NOT NULL
);

INSERT INTO identity (id) VALUES (gen_random_uuid());
