/*
 * verify.c - is what is stored what must be stored?
 *
 * Three comparisons an agent, under its lock so that no push comes between them:
 *   the repository with itself    git fsck; main with the last entry of its reflog
 *   the cache's tip with main
 *   the cache's rows with f       both lists by path, merged like a zip: a row without a file, a file
 *                                 without a row, fields that differ
 * and, for a round over all: the database file page by page, rows of agents that nobody knows, and
 * folders that are no agent's.
 *
 * The rows are compared with f of main even when the cache stands at another tip: then both are
 * told. Nothing is mended here (rebuild does that), with one exception each way: damage fences the
 * agent (F12), and a fence is lifted when there is none.
 */
#include "sync/loose.h"
#include "sync/materialise_int.h"
#include "sync/upkeep_int.h"

#include "base/mem.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- rows ---- */

typedef struct row_check {
    upkeep_round *r;
    const char *id;
    const block_row **want; /* sorted by path */
    size_t n, at;
} row_check;

static const char *text_of(memfs_str s, char *out, size_t size)
{
    snprintf(out, size, "%.*s", (int)s.len, s.ptr);
    return out;
}

static void row_missing(row_check *c, const block_row *want)
{
    char path[1100];

    round_finding(c->r, c->id, "row-missing", text_of(want->path, path, sizeof(path)),
                  "the file has no block in the cache");
}

static void note_field(char *out, size_t size, bool differs, const char *name)
{
    size_t n = strlen(out);

    if (differs)
        snprintf(out + n, size - n, "%s%s", n > 0 ? ", " : "", name);
}

static void compare_rows(row_check *c, const block_row *want, const block_row *got)
{
    char fields[200] = "", path[1100];

#define NOTE(differs, name) note_field(fields, sizeof(fields), (differs), (name))
    NOTE(!str_equal(want->label, got->label), "label");
    NOTE(!str_equal(want->id, got->id), "id");
    NOTE(!str_equal(want->value, got->value), "value");
    NOTE(want->has_description != got->has_description ||
             !str_equal(want->description, got->description),
         "description");
    NOTE(want->limit != got->limit, "limit");
    NOTE(want->read_only != got->read_only, "read_only");
    NOTE(!str_equal(want->metadata_json, got->metadata_json), "metadata");
    NOTE(!str_equal(want->tags_json, got->tags_json), "tags");
    NOTE(want->hidden != got->hidden, "hidden");
    NOTE(!str_equal(want->problem, got->problem), "problem");
    NOTE(!oid_equal(&want->blob, &got->blob), "blob");
    NOTE(want->bytes != got->bytes, "size");
    NOTE(want->created_at_us != got->created_at_us, "created_at");
#undef NOTE
    if (fields[0] != '\0')
        round_finding(c->r, c->id, "row-differs", text_of(want->path, path, sizeof(path)),
                      "not what the file says: %s", fields);
}

static memfs_code check_row(const block_row *got, void *ctx, memfs_error *err)
{
    row_check *c = ctx;
    char path[1100];
    int order = -1;

    (void)err;
    while (c->at < c->n && (order = str_compare(c->want[c->at]->path, got->path)) < 0)
        row_missing(c, c->want[c->at++]);
    if (c->at < c->n && order == 0)
        compare_rows(c, c->want[c->at++], got);
    else
        round_finding(c->r, c->id, "row-extra", text_of(got->path, path, sizeof(path)),
                      "the cache has a block for which there is no file");
    return MEMFS_OK;
}

static int compare_paths(const void *a, const void *b)
{
    return str_compare((*(const block_row *const *)a)->path, (*(const block_row *const *)b)->path);
}

static memfs_code check_rows(upkeep_round *r, agent *a, const plan *p, const memfs_oid *tip,
                             memfs_error *err)
{
    row_check c = { .r = r, .id = a->id, .n = plan_n_rows(p) };
    _cleanup_(mem_freep) const block_row **want = mem_alloc((c.n + 1) * sizeof(*want));
    block_query q = { .agent_id = str_of(a->id), .show_hidden = true, .order = BLOCK_ORDER_PATH };
    cache_tip cached;
    memfs_code rc;

    for (size_t i = 0; i < c.n; i++)
        want[i] = plan_row(p, i, NULL);
    if (c.n > 0)
        qsort(want, c.n, sizeof(*want), compare_paths);
    c.want = want;
    rc = cache_agent_blocks(r->h->cache, &q, &cached, check_row, &c, err);
    if (rc == MEMFS_ENOTFOUND) {
        /* No drift: so it is after a restore, or when the cache was deleted. */
        round_note(r, a->id, "no-rows-yet", "", "its blocks are made at the first request for it");
        return MEMFS_OK;
    }
    if (rc < 0)
        return rc;
    while (c.at < c.n)
        row_missing(&c, want[c.at++]);
    if (!oid_equal(&cached.commit, tip))
        round_finding(r, a->id, "tip-differs", "", "the cache stands at another commit than main");
    return MEMFS_OK;
}

static memfs_code verify_rows(upkeep_round *r, agent *a, const memfs_oid *tip, memfs_error *err)
{
    _cleanup_(plan_freep) plan *p = NULL;
    _cleanup_(repo_closep) repo *git = NULL;
    memfs_code rc;

    if (atomic_load(&r->h->has_other_rule)) {
        round_note(r, a->id, "rows-not-compared", "",
                   "the servers that share the database make blocks by another rule: verify in the "
                   "home of one that runs");
        return MEMFS_OK;
    }
    rc = repo_open(r->h->store, a->repo, &git, err);
    if (rc == MEMFS_OK)
        rc = plan_make(r->h, a, git, NULL, tip, &p, err);
    if (rc == MEMFS_OK)
        rc = plan_births(r->h, a, p, true, err);
    if (rc == MEMFS_OK)
        rc = check_rows(r, a, p, tip, err);
    return rc;
}

/* ---- the repository ---- */

#define REFLOG_TAIL 4096

typedef struct reflog_entry {
    memfs_oid old, new;
} reflog_entry;

/* The last line "<old> <new> <who> <when>\t<why>".  False: there is none. */
static bool last_of_reflog(home *h, const agent *a, reflog_entry *ret)
{
    _cleanup_(mem_freep) char *repo_path = store_path(h->store, a->repo);
    _cleanup_(mem_freep) char *path = mem_printf("%s/logs/" STORE_MAIN, repo_path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char tail[REFLOG_TAIL];
    memfs_str rest, line = MEMFS_STR("");
    off_t size;
    ssize_t n;

    if (fd < 0)
        return false;
    size = lseek(fd, 0, SEEK_END);
    n = pread(fd, tail, sizeof(tail), size > REFLOG_TAIL ? size - REFLOG_TAIL : 0);
    close(fd);
    rest = str_make(tail, n > 0 ? (size_t)n : 0);
    while (str_split(rest, '\n', &line, &rest))
        if (rest.len == 0)
            break;
    return line.len > 2 * (MEMFS_OID_HEX + 1) &&
           oid_parse(str_make(line.ptr, MEMFS_OID_HEX), &ret->old) &&
           oid_parse(str_make(line.ptr + MEMFS_OID_HEX + 1, MEMFS_OID_HEX), &ret->new);
}

/*
 * The log is written before the ref and is not synced, so a crash may leave an entry for a move
 * that did not come about, and a power cut may take the last entries away.  Neither is a move by
 * hand, as long as the cache, which follows the ref, agrees.
 */
static bool is_of_a_crash(upkeep_round *r, agent *a, const reflog_entry *last, const memfs_oid *tip)
{
    _cleanup_(repo_closep) repo *git = NULL;
    memfs_error ignored;
    bool descends = false;
    cache_tip cached;

    if (cache_tip_get(r->h->cache, str_of(a->id), &cached, &ignored) < 0 ||
        !oid_equal(&cached.commit, tip))
        return false;
    if (oid_equal(&last->old, tip))
        return true;
    return repo_open(r->h->store, a->repo, &git, &ignored) == MEMFS_OK &&
           repo_is_ancestor(git, &last->new, tip, &descends, &ignored) == MEMFS_OK && descends;
}

static void check_reflog(upkeep_round *r, agent *a, const memfs_oid *tip)
{
    reflog_entry last;

    if (!last_of_reflog(r->h, a, &last))
        round_finding(r, a->id, "reflog-missing", STORE_MAIN, "main has no log of its moves");
    else if (!oid_equal(&last.new, tip) && !is_of_a_crash(r, a, &last, tip))
        round_finding(r, a->id, "ref-moved", STORE_MAIN,
                      "main is not where its log says that it was moved to");
}

/* A check that could not end, for want of time or descriptors, has found no damage. */
static const char *damage_kind(const memfs_error *err, const char *kind)
{
    return err->code == MEMFS_ECORRUPT ? kind : "not-checked";
}

/* False: there is nothing to compare rows with. */
static bool check_repository(upkeep_round *r, agent *a, memfs_oid *ret_tip, memfs_error *err)
{
    if (!store_has(r->h->store, a->repo)) {
        round_finding(r, a->id, "folder-missing", "", "the repository is gone from the disk");
        return false;
    }
    if (!agent_is_known(a))
        round_finding(r, a->id, "folder-unknown", "",
                      "the state does not know this repository; the next request for it adopts it");
    if (store_fsck(r->h->store, a->repo, err) < 0 ||
        store_tip(r->h->store, a->repo, ret_tip, err) < 0) {
        round_finding(r, a->id, damage_kind(err, "repository-damaged"), "", "%s", err->msg);
        if (err->code == MEMFS_ECORRUPT && !agent_is_fenced(a, &(memfs_error)MEMFS_ERROR_INIT))
            agent_fence(r->h, a, err->msg);
        return false;
    }
    return true;
}

static memfs_code verify_agent(upkeep_round *r, agent *a, memfs_error *err)
{
    memfs_oid tip;

    if (!check_repository(r, a, &tip, err))
        return MEMFS_OK;
    if (agent_is_fenced(a, err)) {
        agent_unfence(r->h, a);
        round_note(r, a->id, "fence-lifted", "", "the repository is whole");
    }
    check_reflog(r, a, &tip);
    return verify_rows(r, a, &tip, err);
}

/* ---- what belongs to no agent ---- */

struct strays {
    upkeep_round *r;
    const id_list *ids;
};

/* The memory of a deleted agent is kept, so it must be whole; rows it has none (row-of-nobody). */
static void verify_deleted(upkeep_round *r, const char *org, const char *id)
{
    _cleanup_(mem_freep) char *repo = mem_printf("repository/%s/%s/repo.git", org, id);
    memfs_error err = MEMFS_ERROR_INIT;

    if (store_fsck(r->h->store, repo, &err) < 0)
        round_finding(r, id, damage_kind(&err, "repository-damaged"), "", "%s", err.msg);
    else
        round_note(r, id, "deleted", "", "the agent is deleted, its memory is kept");
}

static void check_folder(const char *org, const char *name, void *ctx)
{
    struct strays *s = ctx;
    _cleanup_(mem_freep) char *what = mem_printf("%s/%s", org, name);
    memfs_error ignored;
    bool is_known;
    agent *a;

    if (home_is_deleted(s->r->h, str_of(name))) {
        verify_deleted(s->r, org, name);
        return;
    }
    if (id_list_has(s->ids, name) &&
        home_entry(s->r->h, str_of(name), false, &a, &is_known, &ignored) == MEMFS_OK &&
        strcmp(a->org, org) == 0)
        return;
    round_finding(s->r, "", "folder-unknown", what, "a repository that is no agent's");
}

/* Rows of blocks that no agent has, against the state. */
static memfs_code compare_loose(const block_row *rows, size_t n, void *ctx, memfs_error *err)
{
    _cleanup_(mem_freep) const block_row **want = mem_alloc((n + 1) * sizeof(*want));
    row_check c = { .r = ctx, .id = "", .n = n, .want = want };
    block_query q = { .agent_id = LOOSE_AGENT, .show_hidden = true, .order = BLOCK_ORDER_PATH };
    cache_tip cached;
    memfs_code rc;

    for (size_t i = 0; i < n; i++)
        want[i] = &rows[i];
    rc = cache_agent_blocks(c.r->h->cache, &q, &cached, check_row, &c, err);
    if (rc == MEMFS_ENOTFOUND && n == 0)
        return MEMFS_OK;
    if (rc == MEMFS_ENOTFOUND) { /* as of an agent: they are made in a moment */
        round_note(c.r, "", "no-rows-yet", "", "blocks of no agent are shown in a moment");
        return MEMFS_OK;
    }
    while (rc == MEMFS_OK && c.at < c.n)
        row_missing(&c, want[c.at++]);
    return rc;
}

static memfs_code verify_rest(upkeep_round *r, const id_list *ids, memfs_error *err)
{
    _cleanup_(id_list_dispose) id_list nobody = { NULL, 0, 0 };
    struct strays s = { .r = r, .ids = ids };

    home_folders(r->h, check_folder, &s);
    if (cache_check(r->h->cache, err) < 0) {
        round_finding(r, "", damage_kind(err, "cache-damaged"), "",
                      "%s; rebuild makes a damaged one anew", err->msg);
        return MEMFS_OK;
    }
    if (round_nobody(r, ids, &nobody, err) < 0)
        return err->code;
    if (!atomic_load(&r->h->has_other_rule) && loose_all(r->h, compare_loose, r, err) < 0)
        return err->code;
    for (size_t i = 0; i < nobody.n; i++)
        round_finding(r, nobody.ids[i], "row-of-nobody", "",
                      "the cache has blocks of an agent that is not known");
    return MEMFS_OK;
}

memfs_code upkeep_verify(home *h, memfs_str agent_id, const upkeep_watcher *w, upkeep_result *ret,
                         memfs_error *err)
{
    upkeep_round r = { .h = h, .w = w, .ret = ret };
    _cleanup_(id_list_dispose) id_list ids = { NULL, 0, 0 };
    memfs_code rc;

    *ret = (upkeep_result){ 0 };
    rc = home_look_at_rule(h, err);
    if (rc == MEMFS_OK)
        rc = round_agents(&r, agent_id, verify_agent, &ids, err);
    if (rc < 0 || agent_id.len > 0 || r.is_stopped)
        return rc;
    return verify_rest(&r, &ids, err);
}
