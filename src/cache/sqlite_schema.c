#include "cache/sqlite_schema.h"

#include <stddef.h>

/*
 * Cache.  An agent id of 42 bytes would stand in five indexes of each row, so rows carry a number.
 * `blocks` is an ordinary rowid table: rows are up to a megabyte, and in a WITHOUT ROWID table such
 * rows would sit in the inner pages of the tree that every search walks.  `value` is the last
 * column, so that whatever else is read does not pass through its overflow pages.
 *
 * One index for each question:
 *   by_path      which row a change replaces
 *   by_label     one block of an agent
 *   by_agent     an agent's blocks in order of id
 *   by_id        one block
 *   by_created   all blocks, oldest first
 *   by_name      all blocks of one label, oldest first
 * Labels are unique in an agent because paths are, but nothing breaks if they were not (K6).
 *
 * The generation starts at the time in milliseconds with 20 random bits behind it, so that a cache
 * that was made anew does not repeat the ETags of the old one, whatever the clock does (H7).
 */
const char *const SQLITE_CACHE_MIGRATIONS[] = {
    "CREATE TABLE meta("
    "  one INTEGER PRIMARY KEY CHECK(one = 1),"
    "  generation INTEGER NOT NULL,"
    "  rule TEXT);" /* NULL: not told yet */
    "INSERT INTO meta(one, generation, rule) VALUES("
    "  1, (CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER) << 20)"
    "    | (random() & 1048575), NULL);"
    "CREATE TABLE agents("
    "  agent_no INTEGER PRIMARY KEY,"
    "  agent_id TEXT NOT NULL UNIQUE,"
    "  tip BLOB NOT NULL,"
    "  generation INTEGER NOT NULL);"
    "CREATE TABLE blocks("
    "  block_no INTEGER PRIMARY KEY,"
    "  agent_no INTEGER NOT NULL,"
    "  hidden INTEGER NOT NULL,"
    "  read_only INTEGER NOT NULL,"
    "  char_limit INTEGER NOT NULL,"
    "  bytes INTEGER NOT NULL,"
    "  created_at INTEGER NOT NULL,"
    "  updated_at INTEGER NOT NULL,"
    "  blob BLOB NOT NULL,"
    "  id TEXT NOT NULL,"
    "  label TEXT NOT NULL,"
    "  path TEXT NOT NULL,"
    "  metadata TEXT NOT NULL,"
    "  tags TEXT NOT NULL,"
    "  problem TEXT NOT NULL,"
    "  description TEXT,"
    "  value TEXT NOT NULL);"
    "CREATE UNIQUE INDEX by_path ON blocks(agent_no, path);"
    "CREATE INDEX by_label ON blocks(agent_no, label);"
    "CREATE INDEX by_agent ON blocks(agent_no, id);"
    "CREATE INDEX by_id ON blocks(id);"
    "CREATE INDEX by_created ON blocks(created_at, id);"
    "CREATE INDEX by_name ON blocks(label, created_at, id);",
    NULL,
};

/*
 * State.  Births outlive deletes of their block and rebuilds of the cache (K4); they and the banned
 * objects may come before their agent is known, so nothing points at `agents`.
 *
 * Step 2: tokens and mirrors.  Of a token only the hash is here (S4), unique so that no two rows
 * answer for one token.  A mirror's row is what was learned of a remote, whole in each write.
 *
 * Step 3: what a block brought along from a Letta server stands beside its birth.
 *
 * Step 4: documents: blocks that no file backs (they may be large, hence a rowid table), changes
 * that are under way; and how often those of each kind changed.
 */
const char *const SQLITE_STATE_MIGRATIONS[] = {
    "CREATE TABLE agents("
    "  agent_id TEXT NOT NULL PRIMARY KEY,"
    "  org_id TEXT NOT NULL,"
    "  name TEXT NOT NULL,"
    "  tags TEXT NOT NULL,"
    "  created_at INTEGER NOT NULL,"
    "  updated_at INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX agents_by_created ON agents(created_at, agent_id);"
    "CREATE INDEX agents_by_name ON agents(name, created_at, agent_id);"
    "CREATE TABLE births("
    "  agent_id TEXT NOT NULL,"
    "  label TEXT NOT NULL,"
    "  created_at INTEGER NOT NULL,"
    "  PRIMARY KEY(agent_id, label)) WITHOUT ROWID;"
    "CREATE TABLE banned("
    "  agent_id TEXT NOT NULL,"
    "  object BLOB NOT NULL,"
    "  PRIMARY KEY(agent_id, object)) WITHOUT ROWID;",
    "CREATE TABLE tokens("
    "  token_id TEXT NOT NULL PRIMARY KEY,"
    "  name TEXT NOT NULL,"
    "  scope TEXT NOT NULL,"
    "  hash BLOB NOT NULL UNIQUE,"
    "  created_at INTEGER NOT NULL,"
    "  expires_at INTEGER NOT NULL,"
    "  revoked_at INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE mirrors("
    "  agent_id TEXT NOT NULL,"
    "  remote TEXT NOT NULL,"
    "  mark TEXT NOT NULL,"
    "  remote_tip BLOB NOT NULL,"
    "  meta_tip BLOB NOT NULL,"
    "  seen_at INTEGER NOT NULL,"
    "  pushed_at INTEGER NOT NULL,"
    "  proof_at INTEGER NOT NULL,"
    "  proof_tree BLOB NOT NULL,"
    "  answer TEXT NOT NULL,"
    "  detail TEXT NOT NULL,"
    "  n_failures INTEGER NOT NULL,"
    "  failed_at INTEGER NOT NULL,"
    "  next_try INTEGER NOT NULL,"
    "  note TEXT NOT NULL,"
    "  note_text TEXT NOT NULL,"
    "  note_at INTEGER NOT NULL,"
    "  PRIMARY KEY(agent_id, remote)) WITHOUT ROWID;",
    "ALTER TABLE births ADD COLUMN tags TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE births ADD COLUMN block_id TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE births ADD COLUMN char_limit INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE births ADD COLUMN hidden INTEGER NOT NULL DEFAULT 0;",
    "CREATE TABLE docs("
    "  kind TEXT NOT NULL,"
    "  id TEXT NOT NULL,"
    "  body TEXT NOT NULL,"
    "  changed INTEGER NOT NULL,"
    "  PRIMARY KEY(kind, id));"
    "CREATE INDEX docs_by_changed ON docs(kind, changed);"
    "CREATE TABLE doc_marks("
    "  kind TEXT NOT NULL PRIMARY KEY,"
    "  n INTEGER NOT NULL) WITHOUT ROWID;",
    NULL,
};
