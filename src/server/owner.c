/*
 * owner.c - upkeep of the home, asked for over its own socket (teller.h).
 *
 * The secret that a purge removes comes in the body and never in a target, so no log ever has it.
 */
#include "server/teller.h"

typedef memfs_code (*upkeep_fn)(home *h, memfs_str agent_id, const upkeep_watcher *w,
                                upkeep_result *ret, memfs_error *err);

static memfs_code work_through(app *self, const json_t *request, teller *t, upkeep_fn work,
                               memfs_error *err)
{
    const upkeep_watcher watcher = teller_watcher(t);
    upkeep_result result = { 0 };
    memfs_str agent_id = MEMFS_STR("");
    memfs_code rc;

    rc = teller_memory(request, &agent_id, err);
    if (rc == MEMFS_OK)
        rc = work(self->home, agent_id, &watcher, &result, err);
    if (rc == MEMFS_OK)
        teller_result(t, &result);
    return rc;
}

static memfs_code verify(app *self, const json_t *request, teller *t, memfs_error *err)
{
    return work_through(self, request, t, upkeep_verify, err);
}

static memfs_code rebuild(app *self, const json_t *request, teller *t, memfs_error *err)
{
    return work_through(self, request, t, upkeep_rebuild, err);
}

static memfs_code repack(app *self, const json_t *request, teller *t, memfs_error *err)
{
    return work_through(self, request, t, upkeep_repack, err);
}

static memfs_code backup(app *self, const json_t *request, teller *t, memfs_error *err)
{
    const upkeep_watcher watcher = teller_watcher(t);
    upkeep_result result = { 0 };
    memfs_str to = MEMFS_STR("");
    memfs_code rc;

    rc = teller_text(request, "to", &to, err);
    if (rc < 0)
        return rc;
    if (to.len == 0 || to.ptr[0] != '/' || memchr(to.ptr, '\0', to.len) != NULL)
        return memfs_fail(err, MEMFS_EINVALID, "'to' is not an absolute path");
    rc = upkeep_backup(self->home, to.ptr, &watcher, &result, err);
    if (rc == MEMFS_OK)
        teller_result(t, &result);
    return rc;
}

/* "secret": a text that leaked; "blob": an object to replace whole; "dry_run". */
static memfs_code purge_fields(const json_t *request, purge_request *ret, memfs_oid *blob,
                               memfs_error *err)
{
    memfs_str hex = MEMFS_STR("");
    memfs_code rc;

    rc = teller_memory(request, &ret->agent_id, err);
    if (rc == MEMFS_OK)
        rc = teller_text(request, "secret", &ret->needle, err);
    if (rc == MEMFS_OK)
        rc = teller_text(request, "blob", &hex, err);
    if (rc < 0)
        return rc;
    if (ret->agent_id.len == 0)
        return memfs_fail(err, MEMFS_EINVALID, "'agent' is missing");
    rc = teller_flag(request, "dry_run", &ret->dry_run, err);
    if (rc < 0)
        return rc;
    if (hex.len > 0 && !oid_parse(hex, blob))
        return memfs_fail(err, MEMFS_EINVALID, "'blob' is not 40 hex digits");
    ret->n_blobs = hex.len > 0 ? 1 : 0;
    if (ret->needle.len == 0 && ret->n_blobs == 0)
        return memfs_fail(err, MEMFS_EINVALID, "neither 'secret' nor 'blob' is given");
    return MEMFS_OK;
}

static void tell_purged(teller *t, const purge_result *r)
{
    char old_tip[MEMFS_OID_HEX + 1], new_tip[MEMFS_OID_HEX + 1];
    json_writer w = teller_begin(t, "result");

    oid_hex(&r->old_tip, old_tip);
    oid_hex(&r->new_tip, new_tip);
    jw_key_text(&w, "old_tip", old_tip);
    jw_key_text(&w, "new_tip", new_tip);
    jw_key_int(&w, "blobs", (int64_t)r->n_blobs);
    jw_key_int(&w, "commits", (int64_t)r->n_commits);
    teller_end(t, &w);
}

static memfs_code purge(app *self, const json_t *request, teller *t, memfs_error *err)
{
    const upkeep_watcher watcher = teller_watcher(t);
    memfs_oid blob;
    purge_request what = { .blobs = &blob };
    purge_result result;
    memfs_code rc;

    rc = purge_fields(request, &what, &blob, err);
    if (rc == MEMFS_OK)
        rc = upkeep_purge(self->home, &what, &watcher, &result, err);
    if (rc == MEMFS_OK)
        tell_purged(t, &result);
    return rc;
}

void owner_verify(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, verify);
}

void owner_rebuild(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, rebuild);
}

void owner_repack(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, repack);
}

void owner_backup(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, backup);
}

void owner_purge(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, purge);
}
