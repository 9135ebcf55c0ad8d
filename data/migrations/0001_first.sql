-- Models are rows over content-addressed files; two names may stand for one file, so the file has a row of its own.
CREATE TABLE objects (
  sha256  TEXT PRIMARY KEY CHECK (length (sha256) = 64),
  file    TEXT NOT NULL,                    -- what to open, relative to the library's folder
  bytes   INTEGER NOT NULL CHECK (bytes >= 0)
) WITHOUT ROWID;

CREATE TABLE models (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  name          TEXT NOT NULL CHECK (length (name) > 0),
  kind          INTEGER NOT NULL CHECK (kind IN (0, 1)),  -- ValiseModelKind
  parent_id     INTEGER REFERENCES models (id) ON DELETE SET NULL,
  sha256        TEXT NOT NULL REFERENCES objects (sha256),
  architecture  TEXT NOT NULL,
  parameters    INTEGER NOT NULL,
  bpw           REAL NOT NULL,
  license       TEXT NOT NULL DEFAULT '',
  source        TEXT NOT NULL DEFAULT '',
  kl            REAL,                       -- NULL: not measured
  context       INTEGER NOT NULL,
  created_us    INTEGER NOT NULL
);
CREATE UNIQUE INDEX models_name ON models (name COLLATE NOCASE);
CREATE INDEX models_parent ON models (parent_id);
CREATE INDEX models_object ON models (sha256);

-- Packed forms of checkpoints outside the library: good for as long as the source is unchanged.
CREATE TABLE packed_files (
  file      TEXT PRIMARY KEY,
  source    TEXT NOT NULL,
  bytes     INTEGER NOT NULL,
  mtime_ns  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE settings (
  key    TEXT PRIMARY KEY,
  value  TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE chats (
  id              INTEGER PRIMARY KEY AUTOINCREMENT,
  title           TEXT NOT NULL DEFAULT '',
  model_id        INTEGER REFERENCES models (id) ON DELETE SET NULL,
  system_prompt   TEXT NOT NULL DEFAULT '',
  pinned          INTEGER NOT NULL DEFAULT 0 CHECK (pinned IN (0, 1)),
  leaf_id         INTEGER REFERENCES messages (id) ON DELETE SET NULL,
  created_us      INTEGER NOT NULL,
  updated_us      INTEGER NOT NULL,
  deleted_us      INTEGER,                  -- in the bin since
  temperature     REAL NOT NULL,
  top_k           INTEGER NOT NULL,
  top_p           REAL NOT NULL,
  min_p           REAL NOT NULL,
  repeat_penalty  REAL NOT NULL,
  repeat_last_n   INTEGER NOT NULL,
  seed            INTEGER NOT NULL
);
CREATE INDEX chats_order ON chats (pinned DESC, updated_us DESC);
CREATE INDEX chats_model ON chats (model_id);
CREATE INDEX chats_leaf ON chats (leaf_id);

-- A chat is a tree: editing or asking again adds a sibling, nothing is overwritten.
CREATE TABLE messages (
  id                 INTEGER PRIMARY KEY AUTOINCREMENT,
  chat_id            INTEGER NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
  -- Deferred and without a cascade: a cascade would go one level deeper per message, and SQLite stops at 1000.
  parent_id          INTEGER REFERENCES messages (id) DEFERRABLE INITIALLY DEFERRED,
  role               TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant', 'tool')),
  content            TEXT NOT NULL DEFAULT '',
  model_name         TEXT NOT NULL DEFAULT '',
  tokens_per_second  REAL NOT NULL DEFAULT 0,
  finish_reason      TEXT NOT NULL DEFAULT '',
  created_us         INTEGER NOT NULL
);
CREATE INDEX messages_tree ON messages (chat_id, parent_id, id);
CREATE INDEX messages_parent ON messages (parent_id);

CREATE VIRTUAL TABLE messages_text USING fts5 (content, content = 'messages', content_rowid = 'id',
                                               tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3');
CREATE TRIGGER messages_text_insert AFTER INSERT ON messages BEGIN
  INSERT INTO messages_text (rowid, content) VALUES (new.id, new.content);
END;
CREATE TRIGGER messages_text_delete AFTER DELETE ON messages BEGIN
  INSERT INTO messages_text (messages_text, rowid, content) VALUES ('delete', old.id, old.content);
END;
CREATE TRIGGER messages_text_update AFTER UPDATE OF content ON messages BEGIN
  INSERT INTO messages_text (messages_text, rowid, content) VALUES ('delete', old.id, old.content);
  INSERT INTO messages_text (rowid, content) VALUES (new.id, new.content);
END;
