/*
 * ids.h - the names of agents, shared repositories and blocks (http-api 1.4, block-format 6, design
 * 14).
 */
#ifndef MEMFS_MEMORY_IDS_H
#define MEMFS_MEMORY_IDS_H

#include "base/str.h"

#define IDS_DEFAULT_ORG "org-00000000-0000-4000-8000-000000000000"
#define IDS_DEFAULT_USER "user-00000000-0000-4000-8000-000000000000"
#define IDS_MAX_LEN 63
#define IDS_BLOCK_LEN 42 /* "block-" and a UUID, without the NUL */

/* "<prefix>-" and a lower-case UUID of version 4. */
bool ids_is_prefixed_uuid4(memfs_str id, const char *prefix);
/* agent-<uuid4> or agent-local-<uuid4> */
bool ids_is_agent(memfs_str id);
/* repo-<uuid4>: a repository that agents share (http-api 8) */
bool ids_is_shared(memfs_str id);
/*
 * Why this may not be a shared repository's name, in words that end "the name ..."; NULL: it may.
 * It becomes a folder beside an agent's other folders, on disks of every kind (client.md 1).
 */
#define IDS_SHARED_NAME_MAX 64
const char *ids_shared_name_fault(memfs_str name);
/* What a home keeps a repository of: one of the two. */
bool ids_is_memory(memfs_str id);

/* A new one: "<prefix>-" and a random UUID of version 4; prefix has at most 20 bytes. */
void ids_new(const char *prefix, char out[IDS_MAX_LEN + 1]);

/* The reference's synthetic id: MD5 of "agent:label", version bits as they fall (vectors). */
void ids_block_synthetic(memfs_str agent_id, memfs_str label, char out[IDS_BLOCK_LEN + 1]);
/* The same with the version and variant bits of a UUID 4 forced: what memfs answers. */
void ids_block(memfs_str agent_id, memfs_str label, char out[IDS_BLOCK_LEN + 1]);

#endif
