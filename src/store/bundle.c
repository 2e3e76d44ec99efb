#include "store/bundle.h"

#include "base/fs.h"
#include "base/mem.h"
#include "store/git_env.h"
#include "store/store_int.h"

#include <stdlib.h>

/*
 *   # v2 git bundle\n
 *   -<id> <comment>\n            commits that it builds on; none in ours
 *   <id> <ref>\n
 *   \n
 *   a pack
 */

#define SIGNATURE MEMFS_STR("# v2 git bundle\n")
#define MAX_BUNDLE (512u << 20)
#define INDEX_TIMEOUT_MS 300000
#define MAIN MEMFS_STR(STORE_MAIN)
#define BRANCHES MEMFS_STR("refs/heads/")

/* ---- writing ---- */

static void builder_freep(git_packbuilder **builder)
{
    git_packbuilder_free(*builder);
}

static void walk_freep(git_revwalk **walk)
{
    git_revwalk_free(*walk);
}

static int add_chunk(void *bytes, size_t n, void *ctx)
{
    memfs_buf *out = ctx;

    buf_add(out, bytes, n);
    return out->too_big ? -1 : 0;
}

static int build_pack(checkout *c, const memfs_oid *tip, memfs_buf *out)
{
    _cleanup_(builder_freep) git_packbuilder *builder = NULL;
    _cleanup_(walk_freep) git_revwalk *walk = NULL;
    git_repository *view = checkout_repo(c)->view;
    git_oid id;
    int rc = git_packbuilder_new(&builder, view);

    repo_git_oid(tip, &id);
    if (rc == 0)
        git_packbuilder_set_threads(builder, 1);
    if (rc == 0)
        rc = git_revwalk_new(&walk, view);
    if (rc == 0)
        rc = git_revwalk_push(walk, &id);
    if (rc == 0)
        rc = git_packbuilder_insert_walk(builder, walk);
    return rc == 0 ? git_packbuilder_foreach(builder, add_chunk, out) : rc;
}

memfs_code bundle_write(checkout *c, const memfs_oid *tip, const char *path, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(MAX_BUNDLE);
    char hex[MEMFS_OID_HEX + 1];
    int rc;

    if (fs_exists(path))
        return memfs_fail(err, MEMFS_EEXISTS, "'%s' is there already; name a new file", path);
    oid_hex(tip, hex);
    buf_add_str(&out, SIGNATURE);
    buf_printf(&out, "%s " STORE_MAIN "\n%s HEAD\n\n", hex, hex);
    rc = build_pack(c, tip, &out);
    if (out.too_big)
        return buf_check(&out, "the bundle", err);
    if (rc < 0)
        return store_fail_git(err, rc, "could not pack the history");
    return fs_write_atomic(path, buf_str(&out), 0600, err);
}

/* ---- reading ---- */

typedef struct head {
    memfs_oid tip;
    size_t n_branches;
    bool has_main;
} head;

static memfs_code read_need(checkout *c, memfs_str line, memfs_error *err)
{
    git_object_t type;
    uint64_t bytes;
    memfs_oid id;

    if (line.len < MEMFS_OID_HEX || !oid_parse(str_make(line.ptr, MEMFS_OID_HEX), &id))
        return memfs_fail(err, MEMFS_EINVALID, "the bundle's head cannot be read");
    if (repo_header(checkout_repo(c), &id, &type, &bytes, err) == MEMFS_OK)
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_ECONFLICT, "the bundle builds on commit %.12s, which this memory "
                      "does not have; ask for a bundle of the whole history", line.ptr);
}

static memfs_code read_ref(memfs_str line, head *h, memfs_error *err)
{
    memfs_str hex, name;
    memfs_oid id;

    if (!str_split(line, ' ', &hex, &name) || !oid_parse(hex, &id))
        return memfs_fail(err, MEMFS_EINVALID, "the bundle's head cannot be read");
    if (h->has_main || !str_starts_with(name, BRANCHES))
        return MEMFS_OK;
    h->tip = id;
    h->n_branches++;
    h->has_main = str_equal(name, MAIN);
    return MEMFS_OK;
}

/* *ret_pack is what follows the head. */
static memfs_code read_head(checkout *c, memfs_str all, head *h, memfs_str *ret_pack,
                            memfs_error *err)
{
    memfs_code rc = MEMFS_OK;
    memfs_str line;

    if (!str_starts_with(all, SIGNATURE))
        return memfs_fail(err, MEMFS_EINVALID, "the file is no git bundle of version 2");
    *ret_pack = str_from(all, SIGNATURE.len);
    while (rc == MEMFS_OK) {
        if (!str_split(*ret_pack, '\n', &line, ret_pack))
            return memfs_fail(err, MEMFS_ECORRUPT, "the bundle ends in its head");
        if (line.len == 0)
            break;
        rc = line.ptr[0] == '-' ? read_need(c, str_from(line, 1), err) : read_ref(line, h, err);
    }
    if (rc == MEMFS_OK && !h->has_main && h->n_branches != 1)
        return memfs_fail(err, MEMFS_EINVALID, "the bundle has no branch main, and %zu others",
                          h->n_branches);
    return rc;
}

static memfs_code index_pack(checkout *c, memfs_str pack, memfs_error *err)
{
    _cleanup_(git_strings_dispose) git_strings argv = GIT_STRINGS_INIT;
    _cleanup_(git_env_dispose) git_env env = GIT_ENV_INIT;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    _cleanup_(buf_dispose) memfs_buf tail = MEMFS_BUF_INIT(4096);
    char *git = git_env_find();
    process_spec spec;

    if (git == NULL)
        return memfs_fail(err, MEMFS_EUNAVAIL, "git is not installed");
    git_strings_add(&argv, git);
    git_strings_add(&argv, mem_strdup("index-pack"));
    git_strings_add(&argv, mem_strdup("--stdin"));
    git_strings_add(&argv, mem_strdup("--fix-thin"));
    git_strings_add(&argv, mem_strdup("--strict"));
    git_env_begin(&env, GIT_JOB_INDEX_PACK, "/nonexistent");
    git_env_add(&env, "GIT_DIR=%s", checkout_common_dir(c));
    git_env_config(&env, "safe.directory", "*");
    git_env_end(&env);
    spec = git_env_spec(GIT_JOB_INDEX_PACK, &argv, &env, MAX_BUNDLE * (uint64_t)2);
    if (process_run(&spec, pack, &out, &tail, INDEX_TIMEOUT_MS, err) == MEMFS_OK)
        return MEMFS_OK;
    return memfs_fail(err, err->code == MEMFS_EUNAVAIL ? MEMFS_EUNAVAIL : MEMFS_ECORRUPT,
                      "git does not take the bundle's objects: %.*s",
                      (int)process_last_line(buf_str(&tail)).len,
                      process_last_line(buf_str(&tail)).ptr);
}

memfs_code bundle_read(checkout *c, const char *path, memfs_oid *ret_tip, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf all = MEMFS_BUF_INIT(MAX_BUNDLE);
    head h = { .n_branches = 0 };
    memfs_str pack;
    memfs_code rc = fs_read(path, &all, err);

    if (rc == MEMFS_OK)
        rc = read_head(c, buf_str(&all), &h, &pack, err);
    if (rc == MEMFS_OK)
        rc = index_pack(c, pack, err);
    if (rc == MEMFS_OK)
        *ret_tip = h.tip;
    return rc;
}
