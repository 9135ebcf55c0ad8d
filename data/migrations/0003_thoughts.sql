-- How long a model thought before it answered; 0: it did not, or nobody measured.
ALTER TABLE messages ADD COLUMN thought_seconds REAL NOT NULL DEFAULT 0;
