/*
 * shared.h - the shared repositories of the state: their names, and which agents have a link
 * (http-api 8).
 *
 * Here are names and links alone.  The repository itself is a memory of the home like an agent's,
 * under the same id, and comes with its first commit (sync/home.h).
 *
 * A deleted one keeps its row, its links and its repository, and can be brought back; its name is
 * free meanwhile.  Of two names that differ only in case one repository has both.
 *
 * Errors and threads: as state.h.
 */
#ifndef MEMFS_CACHE_SHARED_H
#define MEMFS_CACHE_SHARED_H

#include "cache/state.h"

typedef struct shared_repo {
    memfs_str id; /* repo-<uuid4> */
    memfs_str org_id;
    memfs_str name; /* ASCII */
    int64_t created_at_us;
    int64_t updated_at_us; /* when it was made, deleted or brought back */
    int64_t deleted_at_us; /* 0: it is not */
} shared_repo;
typedef memfs_code (*shared_repo_fn)(const shared_repo *row, void *ctx, memfs_error *err);

typedef struct shared_query {
    memfs_str id; /* empty: all */
    bool with_deleted;
    int64_t offset, limit; /* limit 0: all; of all, by (created_at, id) */
} shared_query;
MEMFS_CHECK memfs_code state_shared_repos(state *s, const shared_query *q, shared_repo_fn fn,
                                          void *ctx, memfs_error *err);
/* EEXISTS: the name is another one's.  A row with that id stays as it is. */
MEMFS_CHECK memfs_code state_shared_add(state *s, const shared_repo *row, memfs_error *err);
/* Deletes it, or brings it back.  ENOTFOUND: there is none that is not (or is) deleted.  EEXISTS:
 * its name is another one's by now. */
MEMFS_CHECK memfs_code state_shared_mark(state *s, memfs_str id, bool is_deleted, int64_t now_us,
                                         memfs_error *err);

typedef struct shared_link {
    memfs_str agent_id, repo_id;
    memfs_str name; /* of the repository; reading only */
    bool may_write;
    bool is_deleted; /* the repository is; reading only */
    int64_t created_at_us;
} shared_link;
typedef memfs_code (*shared_link_fn)(const shared_link *row, void *ctx, memfs_error *err);
/*
 * Of one agent those whose repository is not deleted, by (created_at, id); agent_id empty: all that
 * there are.
 */
MEMFS_CHECK memfs_code state_shared_links(state *s, memfs_str agent_id, shared_link_fn fn,
                                          void *ctx, memfs_error *err);
/* One that is there gets this may_write and keeps its date. */
MEMFS_CHECK memfs_code state_shared_link(state *s, const shared_link *row, memfs_error *err);
/* ENOTFOUND: there is no such link. */
MEMFS_CHECK memfs_code state_shared_unlink(state *s, memfs_str agent_id, memfs_str repo_id,
                                           memfs_error *err);

#endif
