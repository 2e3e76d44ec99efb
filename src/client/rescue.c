#include "client/rescue_int.h"

#include "base/escape.h"
#include "base/fs.h"
#include "base/mem.h"
#include "store/history.h"
#include "store/lost.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * When something was kept is in the hook's log ("<milliseconds> <old> <new> <ref>") and in the name
 * of the client's ref (milliseconds too); the commit's own time only says when it was made, and
 * stands in when there is nothing better.
 *
 * The folded commit's message has a line "<id> <milliseconds> <branch>" a tip, so that nothing of
 * what the refs said is lost.
 */

#define LOG_MAX_BYTES (4u << 20)
#define MAX_LOST 64
#define LETTA_REFS "refs/letta-backup/"

void rescues_dispose(rescues *r)
{
    for (size_t i = 0; i < r->n; i++) {
        free(r->at[i].ref);
        free(r->at[i].branch);
        free(r->at[i].subject);
    }
    free(r->at);
    *r = (rescues)RESCUES_INIT;
}

void rescue_tips_dispose(rescue_tips *t)
{
    free(t->at);
    *t = (rescue_tips){ NULL, 0 };
}

static rescue *add(rescues *r, rescue_kind kind, const memfs_oid *id)
{
    rescue *new;

    for (size_t i = 0; i < r->n; i++)
        if (oid_equal(&r->at[i].id, id))
            return NULL;          /* the first who says it is the one that is told */
    if ((r->n & (r->n - 1)) == 0) /* 0 and powers of two: full */
        r->at = mem_realloc(r->at, r->n == 0 ? 1 : r->n * 2, sizeof(*r->at));
    new = &r->at[r->n++];
    *new = (rescue){ .kind = kind, .id = *id };
    return new;
}

/* branches */

static memfs_code add_tip(const char *name, const memfs_oid *id, void *ctx, memfs_error *err)
{
    rescue_tips *t = ctx;

    (void)name;
    (void)err;
    t->at = mem_realloc(t->at, t->n + 1, sizeof(*t->at));
    t->at[t->n++] = *id;
    return MEMFS_OK;
}

memfs_code rescue_branches(checkout *c, rescue_tips *ret, memfs_error *err)
{
    return checkout_each_ref(c, "refs/heads/", add_tip, ret, err);
}

/* what is kept */

static memfs_code add_hooks(const char *name, const memfs_oid *id, void *ctx, memfs_error *err)
{
    const char *branch = name + strlen(RESCUE_REFS), *end = strrchr(branch, '/');
    rescue *r = add(ctx, RESCUE_TIP, id);

    (void)err;
    if (r != NULL) {
        r->ref = mem_strdup(name);
        r->branch = end != NULL ? mem_strndup(branch, (size_t)(end - branch)) : mem_strdup("");
    }
    return MEMFS_OK;
}

static memfs_code add_lettas(const char *name, const memfs_oid *id, void *ctx, memfs_error *err)
{
    const char *dash = strrchr(name, '-');
    rescue *r = add(ctx, RESCUE_LETTA_BACKUP, id);
    uint64_t ms;

    (void)err;
    if (r == NULL)
        return MEMFS_OK;
    r->ref = mem_strdup(name);
    r->branch = mem_strdup("main");
    if (dash != NULL && str_to_u64(str_of(dash + 1), INT64_MAX, &ms))
        r->time_ms = (int64_t)ms;
    return MEMFS_OK;
}

static void add_folded_line(rescues *r, memfs_str line)
{
    memfs_str hex, time, branch;
    memfs_oid id;
    uint64_t time_ms;
    rescue *new;

    if (!str_split(line, ' ', &hex, &line) || !oid_parse(hex, &id) ||
        !str_split(line, ' ', &time, &branch) || !str_to_u64(time, INT64_MAX, &time_ms))
        return;
    new = add(r, RESCUE_TIP, &id);
    if (new == NULL)
        return;
    new->ref = mem_strdup(RESCUE_FOLDED);
    new->branch = mem_strndup(branch.ptr, branch.len);
    new->time_ms = (int64_t)time_ms;
}

static memfs_code add_folded(checkout *c, rescues *r, memfs_error *err)
{
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    memfs_str line, rest;
    memfs_oid folded;
    memfs_code rc = checkout_ref(c, RESCUE_FOLDED, &folded, err);

    if (rc == MEMFS_ENOTFOUND)
        return MEMFS_OK;
    if (rc == MEMFS_OK)
        rc = repo_commit_info(checkout_repo(c), &folded, &info, err);
    if (rc < 0)
        return rc;
    rest = info.message;
    while (str_split(rest, '\n', &line, &rest))
        add_folded_line(r, line);
    return MEMFS_OK;
}

/* An absent note is an empty one. */
static void read_note(checkout *c, const char *name, memfs_buf *out)
{
    _cleanup_(mem_freep) char *path = checkout_note_path(c, name);
    memfs_error ignored;

    (void)!fs_read(path, out, &ignored);
}

/* The last time that the hook kept each tip. */
static void add_times(checkout *c, rescues *r)
{
    _cleanup_(buf_dispose) memfs_buf log = MEMFS_BUF_INIT(LOG_MAX_BYTES);
    memfs_str rest, line, time, hex;
    uint64_t time_ms;
    memfs_oid id;

    read_note(c, "rescue.log", &log);
    rest = buf_str(&log);
    while (str_split(rest, '\n', &line, &rest)) {
        if (!str_split(line, ' ', &time, &line) || !str_to_u64(time, INT64_MAX, &time_ms) ||
            !str_split(line, ' ', &hex, &line) || !oid_parse(hex, &id))
            continue;
        for (size_t i = 0; i < r->n; i++)
            if (r->at[i].kind == RESCUE_TIP && oid_equal(&r->at[i].id, &id))
                r->at[i].time_ms = (int64_t)time_ms;
    }
}

static int newest_first(const void *a, const void *b)
{
    const rescue *x = a, *y = b;

    if (x->time_ms != y->time_ms)
        return x->time_ms < y->time_ms ? 1 : -1;
    return memcmp(&x->id, &y->id, sizeof(x->id));
}

memfs_code rescue_gather(checkout *c, bool with_letta, rescues *ret, memfs_error *err)
{
    memfs_code rc = checkout_each_ref(c, RESCUE_REFS, add_hooks, ret, err);

    if (rc == MEMFS_OK)
        rc = add_folded(c, ret, err);
    if (rc == MEMFS_OK && with_letta)
        rc = checkout_each_ref(c, LETTA_REFS, add_lettas, ret, err);
    if (rc == MEMFS_OK && ret->n > 0) {
        add_times(c, ret);
        qsort(ret->at, ret->n, sizeof(*ret->at), newest_first);
    }
    return rc;
}

/* notes */

static bool is_seen(memfs_str seen, memfs_str hex)
{
    memfs_str line;

    while (str_split(seen, '\n', &line, &seen))
        if (str_equal(line, hex))
            return true;
    return false;
}

/* "<time> <commit> <n>" */
static void add_merges(checkout *c, rescues *ret)
{
    _cleanup_(buf_dispose) memfs_buf log = MEMFS_BUF_INIT(LOG_MAX_BYTES);
    _cleanup_(buf_dispose) memfs_buf seen = MEMFS_BUF_INIT(LOG_MAX_BYTES);
    memfs_str rest, line, time, hex;
    uint64_t time_s, n_files;
    memfs_oid id;

    read_note(c, RESCUE_MERGED_LOG, &log);
    if (log.len == 0)
        return;
    read_note(c, RESCUE_SEEN_LOG, &seen);
    rest = buf_str(&log);
    while (str_split(rest, '\n', &line, &rest)) {
        rescue *r;

        if (!str_split(line, ' ', &time, &line) || !str_to_u64(time, INT64_MAX / 1000, &time_s) ||
            !str_split(line, ' ', &hex, &line) || !oid_parse(hex, &id) ||
            !str_to_u64(line, SIZE_MAX, &n_files) || is_seen(buf_str(&seen), hex))
            continue;
        r = add(ret, RESCUE_RULE_MERGE, &id);
        if (r != NULL) {
            r->time_ms = (int64_t)time_s * 1000;
            r->n_lost = (size_t)n_files;
        }
    }
}

static memfs_code append_id(checkout *c, const char *name, const memfs_oid *commit,
                            memfs_error *err)
{
    _cleanup_(mem_freep) char *path = checkout_note_path(c, name);
    char line[MEMFS_OID_HEX + 2];
    bool is_written;
    int fd;

    oid_hex(commit, line);
    line[MEMFS_OID_HEX] = '\n';
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return memfs_fail_errno(err, "could not open '%s'", name);
    is_written = write(fd, line, MEMFS_OID_HEX + 1) == MEMFS_OID_HEX + 1;
    if (!is_written)
        memfs_fail_errno(err, "could not write '%s'", name);
    close(fd);
    return is_written ? MEMFS_OK : err->code;
}

memfs_code rescue_mark_seen(checkout *c, const memfs_oid *commit, memfs_error *err)
{
    return append_id(c, RESCUE_SEEN_LOG, commit, err);
}

memfs_code rescue_seen(checkout *c, memfs_error *err)
{
    _cleanup_(rescues_dispose) rescues merges = RESCUES_INIT;
    memfs_code rc = MEMFS_OK;

    add_merges(c, &merges);
    for (size_t i = 0; i < merges.n && rc == MEMFS_OK; i++)
        rc = rescue_mark_seen(c, &merges.at[i].id, err);
    return rc;
}

/* what is lost */

/* A merge that says nothing but what merging its parents says has nothing of its own to lose. */
static bool merge_is_own_work(checkout *c, const commit_info *info)
{
    _cleanup_(merge_result_dispose) merge_result again = MERGE_RESULT_INIT;
    _cleanup_(commit_info_dispose) commit_info made = COMMIT_INFO_INIT;
    memfs_error ignored;

    return info->n_parents != 2 ||
           merge_commits(checkout_repo(c), &info->parents[0], &info->parents[1], &again, &ignored) <
               0 ||
           repo_commit_info(checkout_repo(c), &again.commit, &made, &ignored) < 0 ||
           !oid_equal(&made.tree, &info->tree);
}

static memfs_code is_own_work(checkout *c, const memfs_oid *id, bool *ret, memfs_error *err)
{
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    memfs_code rc = repo_commit_info(checkout_repo(c), id, &info, err);

    if (rc == MEMFS_OK)
        *ret = info.n_parents < 2 || merge_is_own_work(c, &info);
    return rc;
}

memfs_code rescue_count_lost(checkout *c, const memfs_oid *tip, const rescue_tips *kept,
                             size_t *ret, memfs_error *err)
{
    memfs_oid lost[MAX_LOST];
    size_t n = 0, n_own = 0;
    memfs_code rc = lost_commits(checkout_repo(c), tip, kept->at, kept->n, lost, MAX_LOST, &n, err);

    for (size_t i = 0; rc == MEMFS_OK && i < n && i < MAX_LOST; i++) {
        bool is_own = false;

        rc = is_own_work(c, &lost[i], &is_own, err);
        n_own += is_own;
    }
    if (rc == MEMFS_OK)
        *ret = n > MAX_LOST ? n : n_own;
    return rc;
}

/* the list */

static void describe(checkout *c, rescue *r)
{
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    memfs_str line = MEMFS_STR("(the commit cannot be read)"), rest;
    memfs_error ignored;
    char shown[200];

    if (repo_commit_info(checkout_repo(c), &r->id, &info, &ignored) == MEMFS_OK) {
        line = info.message;
        if (str_split(line, '\n', &line, &rest) && line.len == 0)
            line = MEMFS_STR("(no message)");
        if (r->time_ms == 0)
            r->time_ms = info.committer_time_s * 1000;
    }
    r->subject = mem_strdup(escape_text(line, shown, sizeof(shown)));
}

void rescue_judge(checkout *c, rescues *r, const rescue_tips *branches)
{
    rescue_tips kept = { NULL, branches->n };
    memfs_error ignored;

    kept.at = mem_alloc((branches->n + r->n + 1) * sizeof(*kept.at));
    if (branches->n > 0)
        memcpy(kept.at, branches->at, branches->n * sizeof(*kept.at));
    for (size_t i = 0; i < r->n; i++) {
        rescue *at = &r->at[i];

        if (at->kind == RESCUE_RULE_MERGE)
            continue;
        if (rescue_count_lost(c, &at->id, &kept, &at->n_lost, &ignored) < 0)
            at->n_lost = 1; /* what cannot be judged stays */
        else if (at->n_lost > 0)
            kept.at[kept.n++] = at->id;
    }
    rescue_tips_dispose(&kept);
}

/* Takes from the list what is not lost at all, and describes the rest. */
static memfs_code judge(checkout *c, rescues *r, memfs_error *err)
{
    _cleanup_(rescue_tips_dispose) rescue_tips branches = { NULL, 0 };
    memfs_code rc = rescue_branches(c, &branches, err);
    size_t n = 0;

    if (rc < 0)
        return rc;
    rescue_judge(c, r, &branches);
    for (size_t i = 0; i < r->n; i++) {
        rescue *at = &r->at[i];

        if (at->kind != RESCUE_RULE_MERGE && at->n_lost == 0) {
            free(at->ref);
            free(at->branch);
            continue;
        }
        describe(c, at);
        r->at[n++] = *at;
    }
    r->n = n;
    return MEMFS_OK;
}

/* Takes from the list the client's own tips that were found to be kept elsewhere. */
static void skip_kept(checkout *c, rescues *r)
{
    _cleanup_(buf_dispose) memfs_buf kept = MEMFS_BUF_INIT(LOG_MAX_BYTES);
    size_t n = 0;

    read_note(c, RESCUE_KEPT_LOG, &kept);
    if (kept.len == 0)
        return;
    for (size_t i = 0; i < r->n; i++) {
        rescue *at = &r->at[i];
        char hex[MEMFS_OID_HEX + 1];

        oid_hex(&at->id, hex);
        if (at->kind == RESCUE_LETTA_BACKUP && is_seen(buf_str(&kept), str_of(hex))) {
            free(at->ref);
            free(at->branch);
            continue;
        }
        r->at[n++] = *at;
    }
    r->n = n;
}

memfs_code rescue_mark_kept(checkout *c, memfs_error *err)
{
    _cleanup_(rescue_tips_dispose) rescue_tips branches = { NULL, 0 };
    _cleanup_(rescues_dispose) rescues lettas = RESCUES_INIT;
    memfs_code rc = checkout_each_ref(c, LETTA_REFS, add_lettas, &lettas, err);

    skip_kept(c, &lettas);
    if (rc == MEMFS_OK && lettas.n > 0)
        rc = rescue_branches(c, &branches, err);
    for (size_t i = 0; rc == MEMFS_OK && i < lettas.n; i++) {
        size_t n_lost = 1;
        memfs_error ignored; /* what cannot be judged stays */

        if (rescue_count_lost(c, &lettas.at[i].id, &branches, &n_lost, &ignored) == MEMFS_OK &&
            n_lost == 0)
            rc = append_id(c, RESCUE_KEPT_LOG, &lettas.at[i].id, err);
    }
    return rc;
}

memfs_code rescue_list(checkout *c, bool is_cheap, rescues *ret, memfs_error *err)
{
    memfs_code rc = rescue_gather(c, true, ret, err);

    if (rc == MEMFS_OK && is_cheap)
        skip_kept(c, ret);
    if (rc == MEMFS_OK)
        add_merges(c, ret);
    if (rc < 0 || is_cheap)
        return rc;
    rc = judge(c, ret, err);
    if (rc == MEMFS_OK && ret->n > 0)
        qsort(ret->at, ret->n, sizeof(*ret->at), newest_first);
    return rc;
}
