/*
 * read_only.c - see read_only.h.
 *
 * Cost: one tree diff by id, and one blob read and parsed for each .md file that was changed or is
 * gone; new files cost nothing.
 */
#include "sync/read_only.h"

#include "memory/block.h"
#include "memory/precommit.h"

typedef struct walk {
    repo *r;
    const policy *policy;
    read_only_fn fn;
    void *ctx;
    memfs_buf blob;
} walk;

static bool is_read_only_block(memfs_str text)
{
    _cleanup_(buf_dispose) memfs_buf decoded = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf scratch = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(block_dispose) block parsed = BLOCK_INIT;
    block_row_fields fields;
    size_t bad_at;

    if (!block_decode(text, &decoded, &bad_at))
        return false; /* no block; its lines are read all the same */
    block_parse(buf_str(&decoded), &parsed);
    block_row_of(&parsed, MEMFS_STR(""), &scratch, &fields);
    return fields.read_only;
}

bool read_only_says(memfs_str text)
{
    return precommit_is_read_only(text) || is_read_only_block(text);
}

static bool is_file(uint32_t mode)
{
    return mode == TREE_MODE_FILE || mode == TREE_MODE_EXEC;
}

static memfs_code look(const tree_change *c, void *ctx, memfs_error *err)
{
    walk *w = ctx;
    memfs_code rc;

    if (!c->has_old || !is_file(c->old_mode) || !str_ends_with(c->path, MEMFS_STR(".md")))
        return MEMFS_OK;
    buf_clear(&w->blob);
    rc = repo_blob(w->r, &c->old_id, w->policy->max_file_bytes, &w->blob, err);
    if (rc == MEMFS_ELIMIT) /* stored under a wider policy; whoever made it larger may mend it */
        return MEMFS_OK;
    if (rc < 0 || !read_only_says(buf_str(&w->blob)))
        return rc;
    return w->fn(c->path, !c->has_new, w->ctx, err);
}

memfs_code read_only_walk(repo *r, const memfs_oid *from, const memfs_oid *to, const policy *p,
                          read_only_fn fn, void *ctx, memfs_error *err)
{
    walk w = {
        .r = r, .policy = p, .fn = fn, .ctx = ctx, .blob = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED)
    };
    memfs_code rc = repo_diff(r, from, to, p, look, &w, err);

    buf_dispose(&w.blob);
    return rc;
}
