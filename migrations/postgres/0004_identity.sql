-- What tells this database from every other: servers on it find each other by this where they meet servers of others.
CREATE TABLE identity (id UUID NOT NULL);

INSERT INTO identity (id) VALUES (gen_random_uuid());
