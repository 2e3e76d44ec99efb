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
 *
 * Step 2: search (search.h).  `words` of a row are what its index has, each once, behind the word
 * _<agent_no> by which a search of one agent's blocks stays cheap however many others have the same
 * words.  The index says which rows have a word and nothing else (detail=none); it follows the rows
 * by triggers, so that no way to change rows can forget it, and takes words out by the row's own
 * `words`.  Words hold letters and digits of ASCII, and bytes beyond it, which is what the tokenizer
 * `ascii` leaves alone.
 *
 * Step 3: which lists of tags there are (tags.h).
 */
#define INDEX_OF_WORDS(name, table, key)                                                           \
    "CREATE VIRTUAL TABLE " name " USING fts5(words, content='" table "', content_rowid='" key     \
    "', detail=none, columnsize=0, tokenize=\"ascii tokenchars '_'\");"
#define TRIGGERS_OF_WORDS(name, table, key)                                                        \
    "CREATE TRIGGER " name "_new AFTER INSERT ON " table " WHEN new.words <> '' BEGIN"             \
    "  INSERT INTO " name "(rowid, words) VALUES(new." key ", new.words); END;"                    \
    "CREATE TRIGGER " name "_gone AFTER DELETE ON " table " WHEN old.words <> '' BEGIN"            \
    "  INSERT INTO " name "(" name ", rowid, words)"                                               \
    "    VALUES('delete', old." key ", old.words); END;"

#define BLOCK_TRIGGERS                                                                             \
    TRIGGERS_OF_WORDS("block_words", "blocks", "block_no")                                         \
    "CREATE TRIGGER block_words_other AFTER UPDATE OF words ON blocks"                             \
    "  WHEN old.words <> new.words BEGIN"                                                          \
    "  INSERT INTO block_words(block_words, rowid, words)"                                         \
    "    SELECT 'delete', old.block_no, old.words WHERE old.words <> '';"                          \
    "  INSERT INTO block_words(rowid, words) VALUES(new.block_no, new.words); END;"
#define VERSION_TRIGGERS TRIGGERS_OF_WORDS("version_words", "versions", "version_no")

/* Without the triggers, which would take each word of each row out by itself. */
const char SQLITE_CACHE_EMPTY[] =
    "DROP TRIGGER block_words_new; DROP TRIGGER block_words_gone; DROP TRIGGER block_words_other;"
    "DROP TRIGGER version_words_new; DROP TRIGGER version_words_gone;"
    "DELETE FROM blocks; DELETE FROM versions; DELETE FROM agents;"
    "INSERT INTO block_words(block_words) VALUES('delete-all');"
    "INSERT INTO version_words(version_words) VALUES('delete-all');" BLOCK_TRIGGERS
        VERSION_TRIGGERS;

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

    "ALTER TABLE blocks ADD COLUMN words TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE agents ADD COLUMN past BLOB;" /* the commit that `versions` go up to */
    "CREATE TABLE versions("
    "  version_no INTEGER PRIMARY KEY,"
    "  agent_no INTEGER NOT NULL,"
    "  commit_id BLOB NOT NULL,"
    "  blob BLOB NOT NULL,"
    "  path TEXT NOT NULL,"
    "  words TEXT NOT NULL);"
    "CREATE INDEX versions_by_path ON versions(agent_no, path, version_no);"
    INDEX_OF_WORDS("block_words", "blocks", "block_no") BLOCK_TRIGGERS
    INDEX_OF_WORDS("version_words", "versions", "version_no") VERSION_TRIGGERS,

    "CREATE INDEX by_tags ON blocks(tags) WHERE tags <> '[]';",
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
 *
 * Step 5: shared repositories: their names and who has a link.  A repository of that id stands in `agents` from its
 * first commit on, as every memory does.  A name is one repository's as long as that is not deleted; upper and
 * lower case are one, as both are a folder's name on some client's disk.
 *
 * Step 6: agents change, and may be deleted and brought back; sqlite_state_agents.c.
 *
 * Step 7: which lists of tags there are (tags.h).
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
    "CREATE TABLE shared_repos("
    "  repo_id TEXT NOT NULL PRIMARY KEY,"
    "  org_id TEXT NOT NULL,"
    "  name TEXT NOT NULL,"
    "  created_at INTEGER NOT NULL,"
    "  updated_at INTEGER NOT NULL,"
    "  deleted_at INTEGER NOT NULL) WITHOUT ROWID;" /* 0: not */
    "CREATE UNIQUE INDEX shared_repos_by_name ON shared_repos(org_id, lower(name)) WHERE "
    "deleted_at = 0;"
    "CREATE INDEX shared_repos_by_created ON shared_repos(org_id, created_at, repo_id);"
    "CREATE TABLE shared_links("
    "  agent_id TEXT NOT NULL,"
    "  repo_id TEXT NOT NULL,"
    "  may_write INTEGER NOT NULL,"
    "  created_at INTEGER NOT NULL,"
    "  PRIMARY KEY(agent_id, repo_id)) WITHOUT ROWID;",
    "ALTER TABLE agents ADD COLUMN hidden INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE agents ADD COLUMN deleted_at INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE agents ADD COLUMN version INTEGER NOT NULL DEFAULT 0;"
    "CREATE TABLE agent_fields("
    "  agent_id TEXT NOT NULL PRIMARY KEY,"
    "  fields TEXT NOT NULL);"
    "CREATE INDEX agents_by_updated ON agents(updated_at, agent_id);"
    "CREATE INDEX agents_deleted ON agents(deleted_at) WHERE deleted_at <> 0;"
    "CREATE INDEX agents_changed ON agents(version) WHERE version > 0;",
    "CREATE INDEX agents_by_tags ON agents(tags) WHERE deleted_at = 0 AND tags <> '[]';",
    NULL,
};
