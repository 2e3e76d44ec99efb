#include "cache/pg_schema.h"

#include <stddef.h>

/*
 * The tables are those of sqlite_schema.c, in PostgreSQL's words:
 *
 * - What may hold any bytes is bytea; the view `block_text` shows it to people.
 * - There is no counter that every change of every agent would wait for: an agent's generation comes
 *   from a sequence, and the generation of the whole is the sum of 64 counters, of which a change
 *   raises the one of its agent.  A change is seen together with its count, so the sum that a
 *   snapshot sees is the number of changes that it sees, and two snapshots with the same sum are the
 *   same (H7).  The sequence begins at the time in milliseconds with 20 random bits, as there.
 * - Tags of blocks are searched as text first and judged by their reader (pg_cache.c); those of
 *   agents, by which clients find theirs, are an indexed list beside it.
 * - Values lie out of line when they are long (TOAST), so a list that does not ask for them does not
 *   read them.
 *
 * - Words are ours and not a text search configuration's, without places: which rows have all of
 *   some is all that the index is asked (search.h).  The list stands in the row and changes with it.
 *
 * births and banned objects may come before their agent is known, so nothing points at agents.
 */
const char *const PG_MIGRATIONS[] = {
    "CREATE SCHEMA IF NOT EXISTS memfs;"
    "CREATE TABLE version(one bool PRIMARY KEY CHECK(one), version int8 NOT NULL);"
    "INSERT INTO version VALUES(true, 1);"

    "CREATE SEQUENCE generation AS int8;"
    "SELECT setval('generation', (extract(epoch FROM clock_timestamp()) * 1000)::int8 * 1048576"
    "  + floor(random() * 1048576)::int8);"
    "CREATE TABLE rule(one bool PRIMARY KEY CHECK(one), rule bytea);"
    "INSERT INTO rule VALUES(true, NULL);"
    "CREATE TABLE changes(part int4 PRIMARY KEY, n int8 NOT NULL) WITH (fillfactor = 50);"
    "INSERT INTO changes SELECT part, CASE part WHEN 0 THEN nextval('generation') ELSE 0 END"
    "  FROM generate_series(0, 63) part;"
    "CREATE TABLE tips("
    "  agent_no int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
    "  agent_id text COLLATE \"C\" NOT NULL UNIQUE,"
    "  tip bytea NOT NULL,"
    "  generation int8 NOT NULL);"
    "CREATE TABLE blocks("
    "  agent_no int8 NOT NULL,"
    "  char_limit int8 NOT NULL,"
    "  bytes int8 NOT NULL,"
    "  created_at int8 NOT NULL,"
    "  updated_at int8 NOT NULL,"
    "  hidden bool NOT NULL,"
    "  read_only bool NOT NULL,"
    "  blob bytea NOT NULL,"
    "  id text COLLATE \"C\" NOT NULL,"
    "  label bytea NOT NULL,"
    "  path bytea NOT NULL,"
    "  metadata bytea NOT NULL,"
    "  tags bytea NOT NULL,"
    "  problem bytea NOT NULL,"
    "  description bytea,"
    "  value bytea NOT NULL,"
    "  PRIMARY KEY(agent_no, path));"
    "CREATE INDEX blocks_by_label ON blocks(agent_no, label);"
    "CREATE INDEX blocks_by_agent ON blocks(agent_no, id);"
    "CREATE INDEX blocks_by_id ON blocks(id);"
    "CREATE INDEX blocks_by_created ON blocks(created_at, id);"
    "CREATE INDEX blocks_by_name ON blocks(label, created_at, id);"
    "CREATE VIEW block_text AS SELECT agent_id, encode(label, 'escape') AS label,"
    "  encode(path, 'escape') AS path, id, encode(value, 'escape') AS value,"
    "  encode(description, 'escape') AS description, read_only, hidden, char_limit, encode(tags, "
    "'escape') AS tags,"
    "  encode(tip, 'hex') AS commit, to_timestamp(updated_at / 1e6) AS updated_at"
    "  FROM blocks JOIN tips USING (agent_no);"

    "CREATE TABLE agents("
    "  agent_id text COLLATE \"C\" PRIMARY KEY,"
    "  org_id text COLLATE \"C\" NOT NULL,"
    "  name bytea NOT NULL,"
    "  tags bytea NOT NULL,"
    "  tag_list bytea[] NOT NULL,"
    "  created_at int8 NOT NULL,"
    "  updated_at int8 NOT NULL);"
    "CREATE INDEX agents_by_created ON agents(created_at, agent_id);"
    "CREATE INDEX agents_by_name ON agents(name, created_at, agent_id);"
    "CREATE INDEX agents_by_tag ON agents USING gin(tag_list);"
    "CREATE TABLE births("
    "  agent_id text COLLATE \"C\" NOT NULL,"
    "  label bytea NOT NULL,"
    "  created_at int8 NOT NULL,"
    "  PRIMARY KEY(agent_id, label));"
    "CREATE TABLE banned("
    "  agent_id text COLLATE \"C\" NOT NULL,"
    "  object bytea NOT NULL,"
    "  PRIMARY KEY(agent_id, object));"
    "CREATE TABLE tokens("
    "  token_id text COLLATE \"C\" PRIMARY KEY,"
    "  name bytea NOT NULL,"
    "  scope bytea NOT NULL,"
    "  hash bytea NOT NULL UNIQUE,"
    "  created_at int8 NOT NULL,"
    "  expires_at int8 NOT NULL,"
    "  revoked_at int8 NOT NULL);"
    "CREATE TABLE mirrors("
    "  agent_id text COLLATE \"C\" NOT NULL,"
    "  remote text COLLATE \"C\" NOT NULL,"
    "  mark bytea NOT NULL,"
    "  remote_tip bytea NOT NULL,"
    "  meta_tip bytea NOT NULL,"
    "  seen_at int8 NOT NULL,"
    "  pushed_at int8 NOT NULL,"
    "  proof_at int8 NOT NULL,"
    "  proof_tree bytea NOT NULL,"
    "  answer bytea NOT NULL,"
    "  detail bytea NOT NULL,"
    "  n_failures int8 NOT NULL,"
    "  failed_at int8 NOT NULL,"
    "  next_try int8 NOT NULL,"
    "  note bytea NOT NULL,"
    "  note_text bytea NOT NULL,"
    "  note_at int8 NOT NULL,"
    "  PRIMARY KEY(agent_id, remote));",

    /* many servers: a tip is main's of all of them, so it outlives its rows (is_empty) */
    "ALTER TABLE tips ADD holder int8, ADD is_empty bool NOT NULL DEFAULT false;"
    "CREATE INDEX tips_by_generation ON tips(generation);"
    "ALTER TABLE tokens ADD changed int8 NOT NULL DEFAULT nextval('memfs.generation');"
    "CREATE INDEX tokens_by_changed ON tokens(changed);"
    "CREATE TABLE servers("
    "  server_no int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
    "  name text COLLATE \"C\" NOT NULL UNIQUE,"
    "  url bytea NOT NULL,"
    "  token_hash bytea NOT NULL,"
    "  seen_at timestamptz NOT NULL);",

    "ALTER TABLE births ADD COLUMN tags bytea NOT NULL DEFAULT '',"
    "  ADD COLUMN block_id bytea NOT NULL DEFAULT '',"
    "  ADD COLUMN char_limit int8 NOT NULL DEFAULT 0,"
    "  ADD COLUMN hidden bool NOT NULL DEFAULT false;",

    "CREATE TABLE docs("
    "  kind text COLLATE \"C\" NOT NULL,"
    "  id text COLLATE \"C\" NOT NULL,"
    "  body bytea NOT NULL,"
    "  changed int8 NOT NULL,"
    "  PRIMARY KEY(kind, id));"
    "CREATE INDEX docs_by_changed ON docs(kind, changed);"
    "CREATE TABLE doc_marks("
    "  kind text COLLATE \"C\" PRIMARY KEY,"
    "  n int8 NOT NULL);",

    /* search: what a row's index has; `past` is the commit that `versions` go up to */
    "ALTER TABLE blocks ADD COLUMN words tsvector NOT NULL DEFAULT '';"
    "CREATE INDEX blocks_by_words ON blocks USING gin(words);"
    "ALTER TABLE tips ADD COLUMN past bytea;"
    "CREATE TABLE versions("
    "  version_no int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
    "  agent_no int8 NOT NULL,"
    "  commit_id bytea NOT NULL,"
    "  blob bytea NOT NULL,"
    "  path bytea NOT NULL,"
    "  words tsvector NOT NULL);"
    "CREATE INDEX versions_by_path ON versions(agent_no, path, version_no);"
    "CREATE INDEX versions_by_words ON versions USING gin(words);",
    "CREATE TABLE shared_repos("
    "  repo_id text COLLATE \"C\" PRIMARY KEY,"
    "  org_id text COLLATE \"C\" NOT NULL,"
    "  name text COLLATE \"C\" NOT NULL,"
    "  created_at int8 NOT NULL,"
    "  updated_at int8 NOT NULL,"
    "  deleted_at int8 NOT NULL);"
    "CREATE UNIQUE INDEX shared_repos_by_name ON shared_repos(org_id, lower(name))"
    "  WHERE deleted_at = 0;"
    "CREATE INDEX shared_repos_by_created ON shared_repos(org_id, created_at, repo_id);"
    "CREATE TABLE shared_links("
    "  agent_id text COLLATE \"C\" NOT NULL,"
    "  repo_id text COLLATE \"C\" NOT NULL,"
    "  may_write bool NOT NULL,"
    "  created_at int8 NOT NULL,"
    "  PRIMARY KEY(agent_id, repo_id));",
    /* agents change, and may be deleted and brought back */
    "ALTER TABLE agents ADD COLUMN hidden bool NOT NULL DEFAULT false,"
    "  ADD COLUMN deleted_at int8 NOT NULL DEFAULT 0,"
    "  ADD COLUMN version int8 NOT NULL DEFAULT 0,"
    "  ADD COLUMN fields bytea NOT NULL DEFAULT '';"
    "CREATE INDEX agents_by_updated ON agents(updated_at, agent_id);"
    "CREATE INDEX agents_deleted ON agents(deleted_at) WHERE deleted_at <> 0;"
    "CREATE INDEX agents_changed ON agents(version) WHERE version > 0;",
    /* which lists of tags there are: pg_tags.c */
    "CREATE INDEX blocks_by_tags ON blocks(sha256(tags)) WHERE tags <> '[]';"
    "CREATE INDEX agents_by_tags ON agents(sha256(tags)) WHERE deleted_at = 0 AND tags <> '[]';",
    NULL,
};
