/*
 * purge.c - taking a secret out of one agent's memory for good (T28).
 *
 * Protocol v2 serves any object by id, reachable or not, so a secret is gone when its objects are:
 *
 *     1  look        which blobs and messages hold it, and what history would be without (a dry run
 *                    ends here)
 *     2  write       the second history, beside the first
 *     3  ban         the objects' ids in the state, so that a clone that still has them cannot bring
 *                    them back: before anything else moves, as a crash must not forget it
 *     4  move        main, to the second history; the one move that is no fast-forward (H1)
 *     5  drop        backup refs, logs, and every object that main does not reach
 *     6  rows        made anew, and freed pages of the cache overwritten; those in a Letta server's
 *                    tables follow before step 5, while both histories can be read
 *     7  check       by id that the objects are gone, and that main is whole
 *
 * Where servers share the database 4 moves the shared tip first, with the rows of 6, and from exactly
 * the commit whose history was rewritten (purge_shared.h); a push to another server in between begins
 * it again from 1.
 *
 * A crash between any two leaves a repository that works, and a purge that can be run again: it
 * finds nothing more to replace, and drops what the first left.  What it cannot reach is said in
 * the docs: clones, remotes, and backups taken before.
 */
#include "sync/away.h"
#include "sync/tables.h"
#include "sync/upkeep_int.h"

#include "base/mem.h"
#include "store/rewrite.h"
#include "sync/materialise.h"
#include "sync/purge_loose.h"
#include "sync/purge_shared.h"

#include <stdio.h>
#include <stdlib.h>

#define NEEDLE_MIN_BYTES 4
#define MAX_ROUNDS 5 /* other servers move on meanwhile */

typedef struct purge {
    upkeep_round r;
    agent *a;
    const purge_request *q;
    rewrite_result rewritten;
    memfs_oid *banned; /* asked for and found, sorted or not */
    size_t n_banned;
    memfs_oid tip;
} purge;

static void purge_dispose(purge *p)
{
    rewrite_result_dispose(&p->rewritten);
    free(p->banned);
}

/* ---- 1, 2: the second history ---- */

static memfs_code check_request(const purge_request *q, memfs_error *err)
{
    if (q->needle.len == 0 && q->n_blobs == 0)
        return memfs_fail(err, MEMFS_EINVALID, "a purge needs a text or an object to take out");
    if (q->needle.len > 0 && q->needle.len < NEEDLE_MIN_BYTES)
        return memfs_fail(err, MEMFS_EINVALID, "the text to take out must have %d bytes or more",
                          NEEDLE_MIN_BYTES);
    if (q->needle.len > 0 &&
        memmem(REWRITE_MARK "\n", sizeof(REWRITE_MARK), q->needle.ptr, q->needle.len) != NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "the text to take out is part of what stands for it");
    return MEMFS_OK;
}

/* A mistyped id would purge nothing and say that all is well. */
static memfs_code check_blobs(purge *p, repo *r, memfs_error *err)
{
    _cleanup_(mem_freep) memfs_oid *known = NULL;
    char hex[MEMFS_OID_HEX + 1];
    memfs_error ignored;
    size_t n_known = 0;
    uint64_t size;
    memfs_code rc;

    rc = state_banned(p->r.h->state, p->q->agent_id, &known, &n_known, err);
    for (size_t i = 0; rc == MEMFS_OK && i < p->q->n_blobs; i++) {
        const memfs_oid *id = &p->q->blobs[i];
        bool was_purged = false;

        for (size_t j = 0; j < n_known; j++)
            was_purged = was_purged || oid_equal(id, &known[j]);
        oid_hex(id, hex);
        if (!repo_has(r, id) && !was_purged)
            return memfs_fail(err, MEMFS_ENOTFOUND, "there is no object %s", hex);
        if (repo_has(r, id) && repo_blob_size(r, id, &size, &ignored) < 0)
            return memfs_fail(err, MEMFS_EINVALID, "the object %s is no file", hex);
    }
    return rc;
}

static void note_found(memfs_str path, const memfs_oid *blob, void *ctx)
{
    _cleanup_(mem_freep) char *what = mem_strndup(path.ptr, path.len);
    char hex[MEMFS_OID_HEX + 1];
    purge *p = ctx;

    oid_hex(blob, hex);
    round_note(&p->r, p->a->id, p->q->dry_run ? "would-purge" : "purged", what, "object %s", hex);
}

static void note_name(memfs_str path, void *ctx)
{
    _cleanup_(mem_freep) char *what = mem_strndup(path.ptr, path.len);
    purge *p = ctx;

    round_finding(&p->r, p->a->id, "name-kept", what,
                  "the text is part of a file's name, which a purge leaves as it is");
}

static memfs_code write_history(purge *p, memfs_error *err)
{
    _cleanup_(repo_closep) repo *r = NULL;
    rewrite_request request = { .tip = p->tip,
                                .needle = p->q->needle,
                                .blobs = p->q->blobs,
                                .n_blobs = p->q->n_blobs,
                                .dry_run = p->q->dry_run,
                                .found = note_found,
                                .named = note_name,
                                .ctx = p };
    memfs_code rc;

    rc = repo_open(p->r.h->store, p->a->repo, &r, err);
    if (rc == MEMFS_OK)
        rc = check_blobs(p, r, err);
    if (rc == MEMFS_OK)
        rc = rewrite_history(r, &request, &p->r.h->options.policy, &p->rewritten, err);
    return rc;
}

/* ---- 3, 4: the ban and the move ---- */

static memfs_code ban(purge *p, memfs_error *err)
{
    bool is_moving =
        p->r.h->options.letta_database != NULL && !oid_equal(&p->rewritten.new_tip, &p->tip);
    size_t n = p->rewritten.n_gone + p->q->n_blobs, n_all;
    _cleanup_(mem_freep) memfs_oid *all = NULL;
    memfs_code rc;

    p->banned = mem_alloc((n + 2) * sizeof(*p->banned));
    if (p->rewritten.n_gone > 0)
        memcpy(p->banned, p->rewritten.gone, p->rewritten.n_gone * sizeof(*p->banned));
    if (p->q->n_blobs > 0)
        memcpy(p->banned + p->rewritten.n_gone, p->q->blobs, p->q->n_blobs * sizeof(*p->banned));
    if (is_moving) /* by this, rows that are still of it are known for what they are (tables.h) */
        p->banned[n++] = p->tip;
    p->n_banned = n;
    if (n == 0)
        return MEMFS_OK;
    rc = state_banned_add(p->r.h->state, p->q->agent_id, p->banned, n, err);
    return rc < 0 ? rc : agent_banned(p->r.h, p->a, &all, &n_all, err);
}

/* Where servers share main, theirs first: what another one took meanwhile is never overruled. */
static memfs_code move_main(purge *p, memfs_error *err)
{
    const memfs_oid *to = &p->rewritten.new_tip;
    memfs_code rc = MEMFS_OK;

    if (oid_equal(to, &p->tip))
        return MEMFS_OK;
    if (home_is_shared(p->r.h))
        rc = purge_move_shared(p->r.h, p->a, &p->tip, to, err);
    return rc < 0 ? rc : purge_move_own(p->r.h, p->a, &p->tip, to, err);
}

/* ---- 5 to 7: the old objects ---- */

static memfs_code check_gone(purge *p, memfs_error *err)
{
    _cleanup_(repo_closep) repo *r = NULL;
    char hex[MEMFS_OID_HEX + 1];
    memfs_code rc;

    rc = repo_open(p->r.h->store, p->a->repo, &r, err);
    for (size_t i = 0; rc == MEMFS_OK && i < p->n_banned; i++) {
        oid_hex(&p->banned[i], hex);
        if (repo_has(r, &p->banned[i]))
            rc = memfs_fail(err, MEMFS_EINTERNAL, "the object %s is still on disk", hex);
    }
    return rc < 0 ? rc : store_fsck(p->r.h->store, p->a->repo, err);
}

static memfs_code drop_old(purge *p, memfs_error *err)
{
    materialise_result rows;
    memfs_code rc;

    rc = store_drop_old(p->r.h->store, p->a->repo, err);
    if (rc == MEMFS_OK)
        rc = check_gone(p, err);
    if (rc < 0)
        agent_suspect(p->r.h, p->a, err);
    if (rc == MEMFS_OK)
        purge_finished(p->r.h, p->a);
    if (rc == MEMFS_OK && !home_is_shared(p->r.h)) /* else they went with the shared tip */
        rc = materialise_overrule(p->r.h, p->a, &rows, err);
    if (rc == MEMFS_OK)
        rc = cache_scrub(p->r.h->cache, err);
    return rc;
}

static memfs_code look(purge *p, memfs_error *err)
{
    memfs_code rc;

    if (home_is_shared(p->r.h) && purge_follow(p->r.h, p->a, &p->tip, err) < 0)
        return err->code;
    rc = p->q->dry_run ? MEMFS_OK : tables_settle(p->r.h, p->a, NULL, err);
    return rc < 0 ? rc : agent_look(p->r.h, p->a, &p->tip, err);
}

/* Steps 1 to 4. */
static memfs_code rewrite(purge *p, purge_result *ret, memfs_error *err)
{
    memfs_code rc;

    purge_dispose(p);
    p->rewritten = (rewrite_result){ .n_gone = 0 };
    p->banned = NULL;
    rc = look(p, err);
    if (rc == MEMFS_OK)
        rc = write_history(p, err);
    if (rc < 0)
        return rc;
    *ret = (purge_result){ .old_tip = p->tip,
                           .new_tip = p->rewritten.new_tip,
                           .n_blobs = p->rewritten.n_blobs,
                           .n_commits = p->rewritten.n_commits };
    if (p->q->dry_run)
        return MEMFS_OK;
    rc = ban(p, err);
    if (rc == MEMFS_OK)
        rc = move_main(p, err);
    return rc;
}

static memfs_code purge_locked(purge *p, purge_result *ret, memfs_error *err)
{
    memfs_error why = MEMFS_ERROR_INIT;
    memfs_code rc = MEMFS_ECONFLICT, settled;

    if (agent_is_fenced(p->a, err))
        return err->code;
    for (int i = 0; rc == MEMFS_ECONFLICT && i < MAX_ROUNDS; i++)
        rc = rewrite(p, ret, err);
    if (rc == MEMFS_ECONFLICT)
        return memfs_fail(err, MEMFS_EUNAVAIL,
                          "other servers move the memory of agent '%s' faster "
                          "than it is purged: try again",
                          p->a->id);
    if (rc < 0 || p->q->dry_run)
        return rc;
    settled = tables_settle(p->r.h, p->a, &p->tip, &why);
    rc = drop_old(p, err);
    if (rc == MEMFS_OK && settled < 0) {
        *err = why;
        rc = memfs_context(err, "Letta's rows may still have what was purged");
    }
    if (!oid_equal(&p->rewritten.new_tip, &p->tip))
        home_moved(p->r.h, p->a);
    return rc;
}

/* ---- what is beside git ---- */

static void note_loose(const char *block_id, void *ctx)
{
    purge *p = ctx;

    round_note(&p->r, p->a->id, p->q->dry_run ? "would-purge" : "purged", block_id,
               "a block that is attached to nobody");
}

/* Before the rows are scrubbed. */
static memfs_code purge_beside(purge *p, memfs_error *err)
{
    bool is_left = false;
    memfs_code rc = purge_loose(p->r.h, p->q->needle, p->q->dry_run, note_loose, p, err);

    if (rc == MEMFS_OK)
        rc = purge_is_in_state(p->r.h, p->q->agent_id, p->q->needle, &is_left, err);
    if (rc == MEMFS_OK && is_left)
        round_finding(&p->r, p->a->id, "fields-kept", "agent",
                      "the text is in the agent's own fields, or in tags of its blocks, which have "
                      "no history: change them over the API");
    return rc;
}

memfs_code upkeep_purge(home *h, const purge_request *request, const upkeep_watcher *w,
                        purge_result *ret, memfs_error *err)
{
    upkeep_result counts = { 0 };
    _cleanup_(purge_dispose) purge p = { .r = { .h = h, .w = w, .ret = &counts }, .q = request };
    memfs_code rc;

    *ret = (purge_result){ .n_blobs = 0 };
    rc = check_request(request, err);
    if (rc == MEMFS_OK)
        rc = home_agent_repo(h, request->agent_id, &p.a, err);
    if (rc == MEMFS_OK)
        rc = purge_beside(&p, err);
    if (rc < 0)
        return rc;
    agent_lock(p.a);
    rc = purge_locked(&p, ret, err);
    agent_unlock(p.a);
    return rc;
}
