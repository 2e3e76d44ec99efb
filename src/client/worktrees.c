#include "client/worktrees.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "store/browse.h"
#include "store/merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

/*
 * The life of a writer's worktree.  What may happen beside a merge, and why nothing is lost:
 *
 *   the writer goes on writing   after the merge its folder and branch are looked at again; anything new goes
 *                                round once more.  The folder is removed only if it is clean, the branch only
 *                                from the very tip that was merged
 *   others merge, sync, commit   main moves by compare-and-swap; losing means merging again with what is there
 *   the parent is being edited   its files are never touched: the tip waits under refs/memfs/pending/
 *   we die in between            what is merged is in main, what is not is still on its branch: the next merge
 *                                of that name finds either
 */

#define BRANCH_PREFIX "letta/"
#define MAX_LABEL 64
#define STAMP_LEN 23 /* 14 digits, '-', 8 hex digits */
#define MAX_ROUNDS 64
#define TURN_WAIT_MS 120000
#define REF_LEN 512

/* ---- values ---- */

void writer_dispose(writer *w)
{
    free(w->name);
    free(w->path);
    free(w->branch);
    *w = (writer)WRITER_INIT;
}

void writers_dispose(writers *w)
{
    for (size_t i = 0; i < w->n; i++)
        writer_dispose(&w->at[i]);
    free(w->at);
    *w = (writers)WRITERS_INIT;
}

static char *branch_ref(const char *branch)
{
    return mem_printf("refs/heads/%s", branch);
}

static memfs_code check_label(const char *label, memfs_error *err)
{
    size_t len = strlen(label);
    bool is_good = len > 0 && len <= MAX_LABEL && label[0] != '.' && label[0] != '-' &&
                   label[len - 1] != '.' && strstr(label, "..") == NULL &&
                   !str_ends_with(str_of(label), MEMFS_STR(".lock"));

    for (size_t i = 0; i < len; i++)
        is_good = is_good && (strchr("._-", label[i]) != NULL || (label[i] >= '0' && label[i] <= '9') ||
                              (label[i] >= 'a' && label[i] <= 'z') ||
                              (label[i] >= 'A' && label[i] <= 'Z'));
    return is_good ? MEMFS_OK
                   : memfs_fail(err, MEMFS_EINVALID, "'%.80s' is no name for a worktree: letters, "
                                "digits, '.', '_' and '-', at most %d", label, MAX_LABEL);
}

/* Whose it is, because many places are called "memory". */
static memfs_code open_memory(const place *p, checkout **ret, memfs_error *err)
{
    memfs_code rc = checkout_open(p->memory, ret, err);

    if (rc == MEMFS_ENOTFOUND)
        return memfs_fail(err, rc, "agent '%s' has no memory here; 'memfs apply --agent %s' makes it",
                          p->agent_id, p->agent_id);
    return rc < 0 ? memfs_context(err, "agent '%s'", p->agent_id) : rc;
}

/* ---- adding ---- */

static memfs_code make_stamp(char out[32], memfs_error *err)
{
    time_t now = (time_t)(clock_wall_us() / 1000000);
    uint32_t random;
    struct tm tm;
    char digits[16];

    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return memfs_fail_errno(err, "could not draw a random name");
    if (gmtime_r(&now, &tm) == NULL || strftime(digits, sizeof(digits), "%Y%m%d%H%M%S", &tm) == 0)
        return memfs_fail(err, MEMFS_EINTERNAL, "the clock is out of range");
    snprintf(out, 32, "%s-%08x", digits, random);
    return MEMFS_OK;
}

memfs_code worktrees_add(const place *p, const char *label, writer *ret, memfs_error *err)
{
    _cleanup_(checkout_closep) checkout *c = NULL;
    _cleanup_(writer_dispose) writer w = WRITER_INIT;
    memfs_oid main;
    char stamp[32];
    memfs_code rc = check_label(label, err);

    if (rc == MEMFS_OK)
        rc = make_stamp(stamp, err);
    if (rc == MEMFS_OK)
        rc = open_memory(p, &c, err);
    if (rc == MEMFS_OK)
        rc = checkout_ref(c, STORE_MAIN, &main, err);
    if (rc == MEMFS_OK)
        rc = fs_mkdirs(p->worktrees, err);
    if (rc < 0)
        return rc;
    w.name = mem_printf("%s-%s", label, stamp);
    w.path = mem_printf("%s/%s", p->worktrees, w.name);
    w.branch = mem_printf(BRANCH_PREFIX "%s/%s", label, stamp);
    rc = checkout_worktree_add(c, w.path, w.branch, &main, err);
    if (rc < 0)
        return memfs_context(err, "worktree '%s'", w.name);
    *ret = w;
    w = (writer)WRITER_INIT;
    return MEMFS_OK;
}

/* ---- listing ---- */

typedef struct listing {
    checkout *c;
    char *folder; /* real path of the worktrees' folder */
    memfs_oid main;
    writers *found;
} listing;

static void listing_dispose(listing *l)
{
    free(l->folder);
}

/* "x" of "<folder>/x"; NULL: it lies elsewhere. */
static const char *name_in(const char *folder, const char *path)
{
    size_t len = strlen(folder);

    if (strncmp(path, folder, len) != 0 || path[len] != '/' || path[len + 1] == '\0' ||
        strchr(path + len + 1, '/') != NULL)
        return NULL;
    return path + len + 1;
}

/* "20261122140359-0a1b2c3d" at the end, after one character that parts it. */
static bool ends_in_stamp(const char *text, char parting)
{
    size_t len = strlen(text);
    const char *stamp = len > STAMP_LEN ? text + len - STAMP_LEN : NULL;

    return stamp != NULL && len > STAMP_LEN + 1 && stamp[-1] == parting &&
           strspn(stamp, "0123456789") == 14 && stamp[14] == '-' &&
           strspn(stamp + 15, "0123456789abcdef") == 8;
}

/* Of "<label>-<stamp>" the branch; NULL: no name of a worktree.  Caller frees. */
static char *branch_of_name(const char *name)
{
    size_t len = strlen(name);

    if (!ends_in_stamp(name, '-'))
        return NULL;
    return mem_printf(BRANCH_PREFIX "%.*s/%s", (int)(len - STAMP_LEN - 1), name,
                      name + len - STAMP_LEN);
}

/* Of "letta/<label>/<stamp>" the name. */
static char *name_of_branch(const char *branch)
{
    const char *label = branch + sizeof(BRANCH_PREFIX) - 1;
    size_t len = strlen(label);

    if (!str_starts_with(str_of(branch), MEMFS_STR(BRANCH_PREFIX)) || !ends_in_stamp(label, '/') ||
        strchr(label, '/') != label + len - STAMP_LEN - 1)
        return NULL;
    return mem_printf("%.*s-%s", (int)(len - STAMP_LEN - 1), label, label + len - STAMP_LEN);
}

static memfs_code look_at(listing *l, writer *w, memfs_error *err)
{
    _cleanup_(checkout_closep) checkout *tree = NULL;
    _cleanup_(mem_freep) char *ref = branch_ref(w->branch);
    checkout_state state;
    merge_relation relation = MERGE_EQUAL;
    memfs_error ignored = MEMFS_ERROR_INIT;
    memfs_oid tip;
    memfs_code rc = checkout_ref(l->c, ref, &tip, err);

    if (rc == MEMFS_OK)
        rc = merge_relate(checkout_repo(l->c), &tip, &l->main, &relation, &w->n_ahead, NULL, err);
    else if (rc == MEMFS_ENOTFOUND)
        rc = MEMFS_OK;
    w->is_gone = !fs_is_dir(w->path);
    if (rc < 0 || w->is_gone)
        return rc;
    /* a folder that cannot be looked at may hold anything, and hides none of the others */
    w->has_changes = checkout_open(w->path, &tree, &ignored) < 0 ||
                     checkout_inspect(tree, &state, &ignored) < 0 ||
                     state.n_changed + state.n_untracked > 0;
    return MEMFS_OK;
}

static memfs_code add_writer(listing *l, char *name_given, char *path_given, char *branch_given,
                             memfs_error *err)
{
    writer *w;

    l->found->at = mem_realloc(l->found->at, l->found->n + 1, sizeof(*l->found->at));
    w = &l->found->at[l->found->n++];
    *w = (writer){ .name = name_given, .path = path_given, .branch = branch_given };
    return look_at(l, w, err);
}

static memfs_code on_worktree(const char *path, const char *branch, void *ctx, memfs_error *err)
{
    listing *l = ctx;
    const char *name = name_in(l->folder, path);
    char *own = name != NULL ? branch_of_name(name) : NULL;

    (void)branch; /* it may have switched to another; its own is in its name */
    if (own == NULL)
        return MEMFS_OK;
    return add_writer(l, mem_strdup(name), mem_strdup(path), own, err);
}

/* A branch whose folder is gone: somebody removed it, or the client kept the branch alone. */
static memfs_code on_branch(const char *ref, const memfs_oid *id, void *ctx, memfs_error *err)
{
    const char *branch = ref + strlen("refs/heads/");
    listing *l = ctx;
    char *name;

    (void)id;
    for (size_t i = 0; i < l->found->n; i++)
        if (strcmp(l->found->at[i].branch, branch) == 0)
            return MEMFS_OK;
    name = name_of_branch(branch);
    if (name == NULL)
        return MEMFS_OK;
    return add_writer(l, name, mem_printf("%s/%s", l->folder, name), mem_strdup(branch), err);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const writer *)a)->name, ((const writer *)b)->name);
}

static memfs_code list(checkout *c, const place *p, writers *ret, memfs_error *err)
{
    _cleanup_(writers_dispose) writers found = WRITERS_INIT;
    _cleanup_(listing_dispose) listing l = { .c = c, .found = &found };
    memfs_code rc = checkout_ref(c, STORE_MAIN, &l.main, err);

    if (rc < 0)
        return rc;
    l.folder = realpath(p->worktrees, NULL);
    if (l.folder == NULL)
        l.folder = mem_strdup(p->worktrees);
    rc = checkout_each_worktree(c, on_worktree, &l, err);
    if (rc == MEMFS_OK)
        rc = checkout_each_ref(c, "refs/heads/" BRANCH_PREFIX, on_branch, &l, err);
    if (rc < 0)
        return rc;
    if (found.n > 1)
        qsort(found.at, found.n, sizeof(*found.at), by_name);
    *ret = found;
    found = (writers)WRITERS_INIT;
    return MEMFS_OK;
}

memfs_code worktrees_list(const place *p, writers *ret, memfs_error *err)
{
    _cleanup_(checkout_closep) checkout *c = NULL;
    memfs_code rc = open_memory(p, &c, err);

    return rc < 0 ? rc : list(c, p, ret, err);
}

static bool has_label(const writer *w, const char *label)
{
    size_t len = strlen(label);

    return strncmp(w->branch, BRANCH_PREFIX, sizeof(BRANCH_PREFIX) - 1) == 0 &&
           strncmp(w->branch + sizeof(BRANCH_PREFIX) - 1, label, len) == 0 &&
           w->branch[sizeof(BRANCH_PREFIX) - 1 + len] == '/';
}

/* By the name of the folder or branch; else by a label that only one has. */
static memfs_code find(checkout *c, const place *p, const char *name, writer *ret, memfs_error *err)
{
    _cleanup_(writers_dispose) writers all = WRITERS_INIT;
    writer *found = NULL;
    size_t n = 0;
    memfs_code rc = list(c, p, &all, err);

    for (size_t i = 0; rc == MEMFS_OK && i < all.n; i++) {
        bool is_it = strcmp(all.at[i].name, name) == 0 || strcmp(all.at[i].branch, name) == 0;

        if (!is_it && !has_label(&all.at[i], name))
            continue;
        found = &all.at[i];
        n = is_it ? 1 : n + 1;
        if (is_it)
            break;
    }
    if (rc < 0)
        return rc;
    if (n == 0)
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no worktree '%.100s'; 'memfs worktree "
                          "list' shows them", name);
    if (n > 1)
        return memfs_fail(err, MEMFS_EINVALID, "%zu worktrees are called '%.100s'; name one in full "
                          "('memfs worktree list')", n, name);
    *ret = *found;
    *found = (writer)WRITER_INIT;
    return MEMFS_OK;
}

/* ---- into main ---- */

typedef enum taken { TAKEN, TAKEN_LATER } taken; /* later: the parent's checkout cannot change now */

static void pause_a_little(unsigned round)
{
    uint32_t random = 0;

    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
        random = 0;
    clock_sleep_ms(1 + random % (5 * (1 + (round < 10 ? round : 10))));
}

/* One attempt; ECONFLICT with *ret_was_race: main moved meanwhile. */
static memfs_code try_into_main(checkout *c, const memfs_oid *tip, worktree_merge *ret,
                                bool *ret_was_race, memfs_error *err)
{
    _cleanup_(merge_result_dispose) merge_result m = MERGE_RESULT_INIT;
    checkout_update_report report = { 0 };
    memfs_oid now;
    memfs_code rc = checkout_ref(c, STORE_MAIN, &ret->main, err);

    *ret_was_race = false;
    if (rc == MEMFS_OK)
        rc = merge_commits(checkout_repo(c), &ret->main, tip, &m, err);
    if (rc < 0 || oid_equal(&m.commit, &ret->main))
        return rc; /* main has it */
    rc = checkout_update(c, &ret->main, &m.commit, "memfs worktree merge", &report, err);
    if (rc == MEMFS_OK) {
        ret->main = m.commit;
        ret->n_by_rule += m.n_notes;
        return MEMFS_OK;
    }
    if (rc == MEMFS_ECONFLICT) {
        memfs_error other = MEMFS_ERROR_INIT;

        *ret_was_race =
            checkout_ref(c, STORE_MAIN, &now, &other) == MEMFS_OK && !oid_equal(&now, &ret->main);
    }
    return rc;
}

static memfs_code into_main(checkout *c, const memfs_oid *tip, worktree_merge *ret, taken *ret_taken,
                            memfs_error *err)
{
    bool was_race;

    for (unsigned round = 0; round < MAX_ROUNDS; round++) {
        memfs_code rc = try_into_main(c, tip, ret, &was_race, err);

        *ret_taken = TAKEN;
        if (rc == MEMFS_OK || (rc != MEMFS_ECONFLICT && rc != MEMFS_EUNAVAIL))
            return rc;
        *ret_taken = TAKEN_LATER;
        if (rc == MEMFS_ECONFLICT && !was_race)
            break;
        pause_a_little(round);
    }
    *err = (memfs_error)MEMFS_ERROR_INIT;
    return MEMFS_OK;
}

/* ---- what waits ---- */

typedef struct waiting {
    char *ref;
    memfs_oid tip;
} waiting;

typedef struct waitings {
    waiting *at;
    size_t n;
} waitings;

static void waitings_dispose(waitings *w)
{
    for (size_t i = 0; i < w->n; i++)
        free(w->at[i].ref);
    free(w->at);
}

static memfs_code on_pending(const char *name, const memfs_oid *id, void *ctx, memfs_error *err)
{
    waitings *w = ctx;

    (void)err;
    w->at = mem_realloc(w->at, w->n + 1, sizeof(*w->at));
    w->at[w->n++] = (waiting){ mem_strdup(name), *id };
    return MEMFS_OK;
}

static memfs_code take_pending(checkout *c, worktree_merge *ret, memfs_error *err)
{
    _cleanup_(waitings_dispose) waitings all = { NULL, 0 };
    memfs_code rc = checkout_each_ref(c, WORKTREES_PENDING, on_pending, &all, err);

    for (size_t i = 0; rc == MEMFS_OK && i < all.n; i++) {
        taken t = TAKEN;

        rc = into_main(c, &all.at[i].tip, ret, &t, err);
        if (rc == MEMFS_OK && t == TAKEN_LATER)
            return MEMFS_OK;
        if (rc == MEMFS_OK)
            rc = checkout_ref_move(c, all.at[i].ref, &all.at[i].tip, NULL, "merged", err);
        ret->n_taken += rc == MEMFS_OK;
        if (rc == MEMFS_ECONFLICT || rc == MEMFS_ENOTFOUND)
            rc = MEMFS_OK; /* a sync took it meanwhile, or it has grown: it is safe either way */
    }
    return rc;
}

static memfs_code take_turn(checkout *c, fs_lock *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = checkout_note_path(c, "worktrees.lock");
    memfs_code rc = fs_lock_wait(path, clock_mono_ms() + TURN_WAIT_MS, ret, err);

    return rc == MEMFS_EUNAVAIL
               ? memfs_fail(err, rc, "another merge of this memory has not ended in two minutes")
               : rc;
}

/* ---- a worktree's own work ---- */

typedef struct skipping {
    memfs_buf *said;
    size_t n;
} skipping;

static void on_skipped(memfs_str path, const char *why, void *ctx)
{
    skipping *s = ctx;

    s->n++;
    if (s->said != NULL)
        buf_printf(s->said, "not committed: %.*s: %s\n", (int)path.len, path.ptr, why);
}

/* Commits what lies there; *ret_tip is the branch after it. */
static memfs_code commit_work(const writer *w, memfs_oid *ret_tip, skipping *skipped,
                              memfs_error *err)
{
    _cleanup_(checkout_closep) checkout *tree = NULL;
    _cleanup_(browse_closep) browse *b = NULL;
    const policy p = POLICY_INIT;
    checkout_state state;
    store_identity who;
    memfs_code rc = checkout_open(w->path, &tree, err);

    if (rc == MEMFS_ENOTFOUND)
        return memfs_fail(err, MEMFS_ECONFLICT, "'%s' is no working tree any more (its .git is gone); "
                          "move what you need out of it and delete it, then try again", w->path);
    if (rc == MEMFS_OK)
        rc = checkout_inspect(tree, &state, err);
    if (rc < 0)
        return rc;
    if (state.operation != CHECKOUT_CALM)
        return memfs_fail(err, MEMFS_ECONFLICT, "a merge or rebase is in progress in '%s'; finish or "
                          "abort it", w->path);
    if (state.is_detached || strcmp(state.branch, w->branch) != 0)
        return memfs_fail(err, MEMFS_ECONFLICT, "'%s' is not on its branch '%s'; switch back to it",
                          w->path, w->branch);
    *ret_tip = state.head;
    if (state.n_changed + state.n_untracked == 0)
        return MEMFS_OK;
    rc = browse_open(tree, &b, err);
    if (rc < 0)
        return rc;
    browse_identity(b, &who);
    return checkout_commit_all(tree, &p, &who, "memfs: what was not committed in the worktree\n",
                               on_skipped, skipped, ret_tip, err);
}

static memfs_code tip_of(checkout *c, const writer *w, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *ref = branch_ref(w->branch);

    return checkout_ref(c, ref, ret, err);
}

static memfs_code drop_branch(checkout *c, const writer *w, const memfs_oid *tip, memfs_error *err)
{
    _cleanup_(mem_freep) char *ref = branch_ref(w->branch);
    memfs_code rc = checkout_ref_move(c, ref, tip, NULL, "memfs worktree", err);

    return rc == MEMFS_ENOTFOUND ? MEMFS_OK : rc;
}

static memfs_code keep_pending(checkout *c, const writer *w, const memfs_oid *tip, memfs_error *err)
{
    _cleanup_(mem_freep) char *ref = mem_printf(WORKTREES_PENDING "%s", w->name);
    memfs_oid before = { { 0 } };
    memfs_error other = MEMFS_ERROR_INIT;

    /* an earlier round of the same worktree may wait there already; the branch only grew */
    if (checkout_ref(c, ref, &before, &other) < 0)
        before = (memfs_oid){ { 0 } };
    return checkout_ref_move(c, ref, &before, tip, "memfs worktree merge: waits", err);
}

/* ---- merging ---- */

static memfs_code count_commits(checkout *c, const memfs_oid *tip, worktree_merge *ret,
                                memfs_error *err)
{
    merge_relation relation;
    memfs_oid main;
    size_t n = 0;
    memfs_code rc = checkout_ref(c, STORE_MAIN, &main, err);

    if (rc == MEMFS_OK)
        rc = merge_relate(checkout_repo(c), tip, &main, &relation, &n, NULL, err);
    ret->n_commits += n;
    return rc;
}

/*
 * One round: commit, merge, and take folder and branch away if they are still what was merged.
 * ECONFLICT with *ret_is_new: there is something new.
 */
static memfs_code merge_round(checkout *c, const writer *w, worktree_merge *ret, memfs_buf *said,
                              bool *ret_is_new, memfs_error *err)
{
    skipping skipped = { said, 0 };
    taken t = TAKEN;
    memfs_oid tip;
    bool has_folder = fs_is_dir(w->path);
    memfs_code rc = has_folder ? commit_work(w, &tip, &skipped, err) : tip_of(c, w, &tip, err);

    *ret_is_new = false;
    if (rc == MEMFS_OK)
        rc = count_commits(c, &tip, ret, err);
    if (rc == MEMFS_OK)
        rc = into_main(c, &tip, ret, &t, err);
    if (rc == MEMFS_OK && t == TAKEN_LATER)
        rc = keep_pending(c, w, &tip, err);
    if (rc < 0)
        return rc;
    ret->is_pending = t == TAKEN_LATER;
    ret->is_kept = skipped.n > 0;
    if (ret->is_kept)
        return MEMFS_OK;
    rc = checkout_worktree_remove(c, w->path, false, err);
    if (rc == MEMFS_OK || rc == MEMFS_ENOTFOUND)
        rc = drop_branch(c, w, &tip, err);
    *ret_is_new = rc == MEMFS_ECONFLICT;
    return rc;
}

static void say(const writer *w, const worktree_merge *m, memfs_buf *said)
{
    if (m->n_taken > 0)
        buf_printf(said, "%zu earlier %s taken in\n", m->n_taken,
                   m->n_taken == 1 ? "merge that waited was" : "merges that waited were");
    if (m->is_pending)
        buf_printf(said, "'%s' waits under " WORKTREES_PENDING "%s: the memory's own files are not "
                         "clean; commit them, then 'memfs sync' or the next merge takes it\n",
                   w->name, w->name);
    if (m->n_by_rule > 0)
        buf_printf(said, "%zu %s decided by rule; 'memfs show' tells which, 'memfs undo' takes it "
                         "back\n", m->n_by_rule, m->n_by_rule == 1 ? "place was" : "places were");
    if (m->is_kept)
        buf_printf(said, "the folder stays, because of the files that could not be committed: %s\n",
                   w->path);
}

memfs_code worktrees_merge(const place *p, const char *name, worktree_merge *ret, memfs_buf *said,
                           memfs_error *err)
{
    _cleanup_(checkout_closep) checkout *c = NULL;
    _cleanup_(writer_dispose) writer w = WRITER_INIT;
    _cleanup_(fs_unlock) fs_lock turn = FS_LOCK_INIT;
    bool is_new = true;
    memfs_code rc = open_memory(p, &c, err);

    *ret = (worktree_merge){ 0 };
    if (rc == MEMFS_OK)
        rc = take_turn(c, &turn, err);
    if (rc == MEMFS_OK)
        rc = find(c, p, name, &w, err);
    if (rc == MEMFS_OK)
        rc = take_pending(c, ret, err);
    for (unsigned round = 0; rc == MEMFS_OK && is_new && round < MAX_ROUNDS; round++) {
        rc = merge_round(c, &w, ret, said, &is_new, err);
        if (rc == MEMFS_ECONFLICT && is_new)
            rc = MEMFS_OK;
    }
    if (rc == MEMFS_OK && is_new)
        rc = memfs_fail(err, MEMFS_ECONFLICT, "what is committed is in main, but the folder stays: it "
                        "changes all the time, or git has it locked ('git worktree unlock')");
    if (rc < 0)
        return memfs_context(err, "worktree '%.100s'", name);
    say(&w, ret, said);
    return MEMFS_OK;
}

/* ---- removing ---- */

static memfs_code keep_rescued(checkout *c, const writer *w, const memfs_oid *tip, memfs_error *err)
{
    const memfs_oid none = { { 0 } };
    _cleanup_(mem_freep) char *ref = NULL;
    char hex[MEMFS_OID_HEX + 1];
    memfs_code rc;

    oid_hex(tip, hex);
    ref = mem_printf("refs/memfs/rescue/%s/%s", w->branch, hex);
    rc = checkout_ref_move(c, ref, &none, tip, "memfs worktree remove", err);
    return rc == MEMFS_ECONFLICT || rc == MEMFS_EEXISTS ? MEMFS_OK : rc; /* it is kept already */
}

/* What no commit can hold nothing would bring back. */
static memfs_code refuse_to_lose(const writer *w, const skipping *skipped, memfs_error *err)
{
    memfs_str names = buf_str(skipped->said);

    names.len -= names.len > 0; /* the last newline */
    for (size_t i = 0; i < names.len; i++)
        if (skipped->said->ptr[i] == '\n')
            skipped->said->ptr[i] = ';';
    return memfs_fail(err, MEMFS_ECONFLICT, "%zu %s would be lost (%.*s); move what you need out of "
                      "'%.170s' and delete the rest, then try again", skipped->n,
                      skipped->n == 1 ? "file" : "files", (int)(names.len < 200 ? names.len : 200),
                      names.ptr, w->path);
}

/*
 * The folder goes as it would in a merge, not by force: what is written there after the commit stops
 * it, and is still there.
 */
static memfs_code remove_kept(checkout *c, const writer *w, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf said = MEMFS_BUF_INIT(64 * 1024);
    skipping skipped = { &said, 0 };
    memfs_oid tip;
    memfs_code rc = w->has_changes ? commit_work(w, &tip, &skipped, err) : tip_of(c, w, &tip, err);

    if (rc == MEMFS_ENOTFOUND) /* the branch is gone already */
        return checkout_worktree_remove(c, w->path, false, err);
    if (rc == MEMFS_OK && skipped.n > 0)
        return refuse_to_lose(w, &skipped, err);
    if (rc == MEMFS_OK && (w->n_ahead > 0 || w->has_changes))
        rc = keep_rescued(c, w, &tip, err);
    if (rc < 0)
        return rc;
    rc = checkout_worktree_remove(c, w->path, false, err);
    return rc < 0 && rc != MEMFS_ENOTFOUND ? rc : drop_branch(c, w, &tip, err);
}

memfs_code worktrees_remove(const place *p, const char *name, bool is_forced, memfs_error *err)
{
    _cleanup_(checkout_closep) checkout *c = NULL;
    _cleanup_(writer_dispose) writer w = WRITER_INIT;
    _cleanup_(fs_unlock) fs_lock turn = FS_LOCK_INIT;
    memfs_code rc = open_memory(p, &c, err);

    if (rc == MEMFS_OK)
        rc = take_turn(c, &turn, err);
    if (rc == MEMFS_OK)
        rc = find(c, p, name, &w, err);
    if (rc < 0)
        return rc;
    if (!is_forced && (w.has_changes || w.n_ahead > 0))
        return memfs_fail(err, MEMFS_ECONFLICT, "worktree '%s' has %zu %s that main lacks%s; merge it, "
                          "or remove it with --force (what it holds is then kept for 'memfs undo')",
                          w.name, w.n_ahead, w.n_ahead == 1 ? "commit" : "commits",
                          w.has_changes ? ", and uncommitted files" : "");
    return remove_kept(c, &w, err);
}
