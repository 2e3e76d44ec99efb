#include "client/rescue_int.h"

#include "base/clock.h"
#include "base/escape.h"
#include "base/fs.h"
#include "base/mem.h"
#include "store/browse.h"

#include <stdio.h>
#include <stdlib.h>

/*
 * Four things can be undone, and each becomes one commit on main, or none when nothing would
 * change:
 *
 *   a kept tip             main merged with it (a fast-forward when main has nothing of its own)
 *   a merge by rule        its decided files as they were on this machine; three ways, so that
 *                          what was edited since stays: base the merge, ours main, theirs the
 *                          merge with those files exchanged
 *   a commit of main       three ways: base the commit, ours main, theirs its parent
 *   another merge of main  the same against the parent that was on this machine
 *
 * Which parent was on this machine, the reflog of main says (parents of our merges are in order of
 * their id); without it the first is taken.
 *
 * Objects are written first, then main and the working tree move together (checkout_update), if the
 * checkout is calm and clean.  A lost race is tried again.
 */

#define N_TRIES 3
#define MAX_FILE_BYTES (64u << 20)
#define MIN_PREFIX 4

typedef struct undoing {
    checkout *c;
    browse *b;
    bool is_dry_run;
    memfs_oid main;
    memfs_oid result; /* what main becomes */
    memfs_buf *said;
} undoing;

static void short_hex(const memfs_oid *id, char out[8])
{
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(id, hex);
    snprintf(out, 8, "%.7s", hex);
}

/* may the checkout change? */

static memfs_code refuse(const checkout_state *s, memfs_error *err)
{
    char shown[200];

    if (s->operation != CHECKOUT_CALM)
        return memfs_fail(err, MEMFS_ECONFLICT,
                          "a merge or rebase is in progress: finish it or 'git merge "
                          "--abort' / 'git rebase --abort', then undo again");
    if (s->is_detached)
        return memfs_fail(err, MEMFS_ECONFLICT,
                          "the checkout is on no branch: 'git switch main', then undo "
                          "again");
    if (strcmp(s->branch, "main") != 0)
        return memfs_fail(err, MEMFS_ECONFLICT,
                          "the checkout is on '%s': 'git switch main', then undo again", s->branch);
    if (s->n_changed > 0)
        return memfs_fail(err, MEMFS_ECONFLICT,
                          "%zu %s not committed ('%s'): commit first, then undo again",
                          s->n_changed, s->n_changed == 1 ? "file is" : "files are",
                          escape_text(str_of(s->first_changed), shown, sizeof(shown)));
    return MEMFS_OK;
}

static memfs_code check_calm(undoing *u, memfs_error *err)
{
    checkout_state state;
    bool did;
    memfs_code rc;

    if (checkout_work_tree(u->c) == NULL)
        return MEMFS_OK;
    rc = checkout_recover(u->c, &did, err);
    if (rc == MEMFS_OK)
        rc = checkout_inspect(u->c, &state, err);
    return rc == MEMFS_OK ? refuse(&state, err) : rc;
}

/* commits */

static store_identity identity(void)
{
    return (store_identity){ "memfs", "memfs@localhost", clock_wall_us() / 1000000 };
}

/* base and theirs are commits; their difference is laid over main. */
static memfs_code lay_over_main(undoing *u, const memfs_oid *base, const memfs_oid *theirs,
                                const char *message, memfs_error *err)
{
    _cleanup_(commit_info_dispose) commit_info at_base = COMMIT_INFO_INIT;
    _cleanup_(commit_info_dispose) commit_info at_main = COMMIT_INFO_INIT;
    _cleanup_(commit_info_dispose) commit_info at_theirs = COMMIT_INFO_INIT;
    _cleanup_(merge_result_dispose) merge_result notes = MERGE_RESULT_INIT;
    repo *r = checkout_repo(u->c);
    store_identity who = identity();
    memfs_oid tree;
    memfs_code rc = repo_commit_info(r, base, &at_base, err);

    if (rc == MEMFS_OK)
        rc = repo_commit_info(r, &u->main, &at_main, err);
    if (rc == MEMFS_OK)
        rc = repo_commit_info(r, theirs, &at_theirs, err);
    if (rc == MEMFS_OK)
        rc = merge_trees(r, &at_base.tree, &at_main.tree, &at_theirs.tree, &tree, &notes, err);
    if (rc < 0)
        return rc;
    if (oid_equal(&tree, &at_main.tree)) {
        u->result = u->main;
        return MEMFS_OK;
    }
    return checkout_commit_tree(u->c, &tree, &u->main, 1, &who, message, &u->result, err);
}

static char *message_for(const memfs_oid *commit, const commit_info *info, const char *what)
{
    memfs_str subject = info->message, rest;
    char hex[MEMFS_OID_HEX + 1], shown[200];

    str_split(subject, '\n', &subject, &rest);
    oid_hex(commit, hex);
    return mem_printf("memfs: undo %s %.7s\n\n%s\n\nMemfs-Undoes: %s\n", what, hex,
                      escape_text(subject, shown, sizeof(shown)), hex);
}

/* a kept tip */

static memfs_code bring_back(undoing *u, const rescue *r, memfs_error *err)
{
    _cleanup_(merge_result_dispose) merge_result m = MERGE_RESULT_INIT;
    char name[8], shown[200];
    memfs_code rc = merge_commits(checkout_repo(u->c), &u->main, &r->id, &m, err);

    if (rc < 0)
        return rc;
    short_hex(&r->id, name);
    u->result = m.commit;
    buf_printf(u->said, "%s of '%s' %s brought back into main: %s\n", name,
               escape_text(str_of(r->branch), shown, sizeof(shown)),
               u->is_dry_run ? "would be" : "is", r->subject);
    if (m.n_notes > 0)
        buf_printf(u->said, "%zu files met changes of main and were merged by rule: 'memfs show'\n",
                   m.n_notes);
    return MEMFS_OK;
}

/* merges */

/* The line of main's reflog that made the merge: "<old> <new> who...". */
static bool reflog_before(checkout *c, const memfs_oid *merge, memfs_oid *ret)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/logs/refs/heads/main", checkout_common_dir(c));
    _cleanup_(buf_dispose) memfs_buf log = MEMFS_BUF_INIT(64u << 20);
    memfs_str rest, line, old_hex, new_hex;
    memfs_error ignored;
    memfs_oid new_id;

    if (fs_read(path, &log, &ignored) < 0)
        return false;
    rest = buf_str(&log);
    while (str_split(rest, '\n', &line, &rest))
        if (str_split(line, ' ', &old_hex, &line) && str_split(line, ' ', &new_hex, &line) &&
            oid_parse(new_hex, &new_id) && oid_equal(&new_id, merge) && oid_parse(old_hex, ret) &&
            !oid_is_zero(ret))
            return true;
    return false;
}

static const memfs_oid *parent_here(undoing *u, const memfs_oid *merge, const commit_info *info)
{
    memfs_error ignored;
    memfs_oid before;
    bool is_in;

    if (!reflog_before(u->c, merge, &before))
        return &info->parents[0];
    for (size_t i = 0; i < info->n_parents; i++)
        if (repo_is_ancestor(checkout_repo(u->c), &before, &info->parents[i], &is_in, &ignored) ==
                MEMFS_OK &&
            is_in)
            return &info->parents[i];
    return &info->parents[0];
}

typedef struct exchange {
    undoing *u;
    const memfs_oid *from; /* the commit whose files are wanted */
    checkout_edit *edits;
    memfs_buf *contents;
    size_t n;
} exchange;

static void exchange_dispose(exchange *x)
{
    for (size_t i = 0; i < x->n; i++) {
        free((char *)x->edits[i].path.ptr);
        buf_dispose(&x->contents[i]);
    }
    free(x->edits);
    free(x->contents);
}

/* The file as it is in x->from; absent there, it goes. */
static memfs_code exchange_file(exchange *x, const char *path, memfs_error *err)
{
    memfs_buf content = MEMFS_BUF_INIT(MAX_FILE_BYTES);
    memfs_code rc;

    for (size_t i = 0; i < x->n; i++)
        if (str_equal(x->edits[i].path, str_of(path)))
            return MEMFS_OK;
    rc = browse_file(x->u->b, x->from, path, &content, err);
    if (rc < 0 && rc != MEMFS_ENOTFOUND) {
        buf_dispose(&content);
        return rc;
    }
    x->edits = mem_realloc(x->edits, x->n + 1, sizeof(*x->edits));
    x->contents = mem_realloc(x->contents, x->n + 1, sizeof(*x->contents));
    x->contents[x->n] = content;
    x->edits[x->n].path = str_of(mem_strdup(path));
    x->edits[x->n].content = rc == MEMFS_OK ? buf_str(&content) : str_make(NULL, 0);
    x->n++;
    return MEMFS_OK;
}

static bool names_a_file(merge_rule rule)
{
    return rule == MERGE_RULE_BINARY || rule == MERGE_RULE_FOLLOWED ||
           rule == MERGE_RULE_RENAMED_TWICE || rule == MERGE_RULE_BESIDE;
}

/* The merge, with what a rule decided as the parent has it. */
static memfs_code without_decisions(undoing *u, const memfs_oid *merge, const memfs_oid *parent,
                                    const merge_result *notes, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(exchange_dispose) exchange x = { u, parent, NULL, NULL, 0 };
    store_identity who = identity();
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; i < notes->n_notes && rc == MEMFS_OK; i++) {
        const merge_note *n = &notes->notes[i];

        rc = exchange_file(&x, n->path, err);
        if (rc == MEMFS_OK && names_a_file(n->rule))
            rc = exchange_file(&x, n->detail, err);
    }
    return rc == MEMFS_OK
               ? checkout_commit_edits(u->c, merge, x.edits, x.n, &who,
                                       "memfs: without the decisions of the merge\n", ret, err)
               : rc;
}

static memfs_code revert_merge(undoing *u, const memfs_oid *merge, const commit_info *info,
                               memfs_error *err)
{
    _cleanup_(merge_result_dispose) merge_result notes = MERGE_RESULT_INIT;
    _cleanup_(mem_freep) char *message = NULL;
    const memfs_oid *parent = parent_here(u, merge, info);
    char name[8], parent_name[8];
    memfs_oid wanted = *parent;
    memfs_code rc = merge_notes_of(checkout_repo(u->c), merge, &notes, err);
    bool has_notes = rc == MEMFS_OK && notes.n_notes > 0;

    if (rc == MEMFS_ENOTFOUND) /* a merge of somebody else's */
        rc = MEMFS_OK;
    if (rc == MEMFS_OK && has_notes)
        rc = without_decisions(u, merge, parent, &notes, &wanted, err);
    if (rc < 0)
        return rc;
    message = message_for(merge, info, "merge");
    rc = lay_over_main(u, merge, &wanted, message, err);
    if (rc < 0)
        return rc;
    short_hex(merge, name);
    short_hex(parent, parent_name);
    if (has_notes)
        buf_printf(u->said,
                   "%zu decisions of the merge %s %s undone: those files are as in %s, the rest of "
                   "the merge stays\n",
                   notes.n_notes, name, u->is_dry_run ? "would be" : "are", parent_name);
    else
        buf_printf(u->said,
                   "the merge %s %s undone: what came with it is out of the files, as in %s\n",
                   name, u->is_dry_run ? "would be" : "is", parent_name);
    return MEMFS_OK;
}

/* a commit of main */

static memfs_code revert(undoing *u, const memfs_oid *commit, memfs_error *err)
{
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    _cleanup_(mem_freep) char *message = NULL;
    char name[8], shown[200];
    memfs_str subject, rest;
    memfs_code rc = repo_commit_info(checkout_repo(u->c), commit, &info, err);

    if (rc < 0)
        return rc;
    if (info.n_parents == 0)
        return memfs_fail(err, MEMFS_EINVALID, "the first commit of a memory cannot be undone");
    if (info.n_parents > 1)
        return revert_merge(u, commit, &info, err);
    message = message_for(commit, &info, "commit");
    rc = lay_over_main(u, commit, &info.parents[0], message, err);
    if (rc < 0)
        return rc;
    subject = info.message;
    str_split(subject, '\n', &subject, &rest);
    short_hex(commit, name);
    buf_printf(u->said, "the commit %s %s undone: %s\n", name, u->is_dry_run ? "would be" : "is",
               escape_text(subject, shown, sizeof(shown)));
    return MEMFS_OK;
}

/* which one */

static const rescue *find(const rescues *list, const char *what)
{
    size_t len = what != NULL ? strlen(what) : 0;

    if (what == NULL)
        return list->n > 0 ? &list->at[0] : NULL;
    for (size_t i = 0; len >= MIN_PREFIX && i < list->n; i++) {
        char hex[MEMFS_OID_HEX + 1];

        oid_hex(&list->at[i].id, hex);
        if (strncmp(hex, what, len) == 0)
            return &list->at[i];
    }
    return NULL;
}

static memfs_code find_commit(undoing *u, const char *what, memfs_oid *ret, memfs_error *err)
{
    bool is_in = false;
    memfs_code rc = browse_commit(u->b, what, ret, err);

    if (rc == MEMFS_OK)
        rc = repo_is_ancestor(checkout_repo(u->c), ret, &u->main, &is_in, err);
    if (rc == MEMFS_OK && !is_in)
        return memfs_fail(err, MEMFS_ENOTFOUND,
                          "'%.60s' is neither a commit of main nor something that was "
                          "kept: see 'memfs undo --list'",
                          what);
    return rc;
}

static memfs_code choose(undoing *u, const rescues *list, const char *what,
                         const rescue **ret_rescue, memfs_error *err)
{
    const rescue *r = find(list, what);
    memfs_oid commit;
    memfs_code rc;

    *ret_rescue = r;
    if (r != NULL)
        return r->kind == RESCUE_RULE_MERGE ? revert(u, &r->id, err) : bring_back(u, r, err);
    if (what == NULL)
        return memfs_fail(err, MEMFS_ENOTFOUND,
                          "there is nothing to undo: nothing was lost, and no merge was "
                          "decided by rule; 'memfs undo COMMIT' reverts a commit");
    rc = find_commit(u, what, &commit, err);
    return rc == MEMFS_OK ? revert(u, &commit, err) : rc;
}

static memfs_code move_main(undoing *u, memfs_error *err)
{
    checkout_update_report report = { 0 };
    memfs_code rc;

    if (oid_equal(&u->result, &u->main)) {
        buf_puts(u->said, "nothing changes: main has it so already\n");
        return MEMFS_OK;
    }
    if (u->is_dry_run)
        return MEMFS_OK;
    rc = checkout_update(u->c, &u->main, &u->result, "memfs: undo", &report, err);
    if (rc == MEMFS_ECONFLICT && report.in_the_way[0] != '\0') {
        char shown[200];

        return memfs_fail(err, MEMFS_ECONFLICT,
                          "'%s' is in the way: it would be overwritten; commit it or move "
                          "it away, then undo again",
                          escape_text(str_of(report.in_the_way), shown, sizeof(shown)));
    }
    return rc;
}

static memfs_code undo_once(undoing *u, const char *what, memfs_error *err)
{
    _cleanup_(rescues_dispose) rescues list = RESCUES_INIT;
    const rescue *r = NULL;
    memfs_code rc = rescue_list(u->c, false, &list, err);

    buf_clear(u->said);
    if (rc == MEMFS_OK)
        rc = checkout_ref(u->c, STORE_MAIN, &u->main, err);
    if (rc == MEMFS_OK)
        rc = choose(u, &list, what, &r, err);
    if (rc == MEMFS_OK)
        rc = move_main(u, err);
    if (rc == MEMFS_OK && !u->is_dry_run && r != NULL && r->kind == RESCUE_RULE_MERGE)
        rc = rescue_mark_seen(u->c, &r->id, err);
    return rc;
}

/* Did somebody commit in between? */
static bool main_moved(undoing *u)
{
    memfs_error ignored;
    memfs_oid now;

    return !oid_is_zero(&u->main) && checkout_ref(u->c, STORE_MAIN, &now, &ignored) == MEMFS_OK &&
           !oid_equal(&now, &u->main);
}

static memfs_code undo_in_peace(undoing *u, const char *what, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    for (int i = 0; i < N_TRIES; i++) {
        u->main = (memfs_oid){ { 0 } };
        rc = check_calm(u, err);
        if (rc == MEMFS_OK)
            rc = undo_once(u, what, err);
        if (rc != MEMFS_ECONFLICT || !main_moved(u))
            break;
    }
    return rc;
}

memfs_code rescue_undo(checkout *c, const char *what, bool is_dry_run, memfs_oid *ret,
                       memfs_buf *ret_said, memfs_error *err)
{
    _cleanup_(browse_closep) browse *b = NULL;
    undoing u = { .c = c, .is_dry_run = is_dry_run, .said = ret_said };
    memfs_code rc = browse_open(c, &b, err);

    u.b = b;
    if (rc == MEMFS_OK)
        rc = undo_in_peace(&u, what, err);
    if (rc == MEMFS_OK)
        *ret = u.result;
    return rc;
}
