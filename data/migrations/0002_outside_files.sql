-- Checkpoints outside the library of which something is kept (an analysis, a packed form): it goes once they have gone or changed.
CREATE TABLE outside_files (
  key       TEXT PRIMARY KEY CHECK (length (key) = 64),  -- the beginning of the kept files' names
  path      TEXT NOT NULL,
  bytes     INTEGER NOT NULL,
  mtime_ns  INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO outside_files (key, path, bytes, mtime_ns)
  SELECT substr (file, 1, 64), source, bytes, mtime_ns FROM packed_files WHERE length (file) > 64 GROUP BY substr (file, 1, 64);
DROP TABLE packed_files;
