#include "store/vet.h"
#include "store/vet_int.h"

/*
 * The commits that a fetch brought (T13 to T16, T23).
 *
 * What an earlier commit holds is not judged by the policy.  But whatever reads history later (a
 * merge base, a diff, a restore, git itself) must be able to, so its trees have the bounds of
 * store_policy_of_history().  Each tree object is opened once for its id, so the cost is a
 * fraction of index-pack's, which has read them all just now.
 *
 * Nearly always each new commit has one parent, and the list is the way from the tip down to a
 * known one.  libgit2's walk goes by dates, which are whatever somebody wrote, and may see no end
 * before the root; it is asked about the rest: merges, histories that have parted, and long ways.
 */

#define MAX_COMMITS 1000000
#define MAX_ENTRIES 200000000 /* looked at */
#define LINE_MAX_COMMITS 256

typedef struct history {
    vet t;
    policy bounds;
    git_oid known[VET_TIP_MAX_KNOWN];
    size_t n_known, n_commits;
} history;

static void history_dispose(history *h)
{
    vet_dispose(&h->t);
}

static void git_commit_freep(git_commit **commit)
{
    git_commit_free(*commit);
}

static void git_revwalk_freep(git_revwalk **walk)
{
    git_revwalk_free(*walk);
}

static memfs_code look_up(const history *h, const git_oid *id, git_commit **ret, memfs_error *err)
{
    int rc = git_commit_lookup(ret, h->t.r->view, id);

    return rc == 0 ? MEMFS_OK : store_fail_git(err, rc, "could not read a new commit");
}

static memfs_code fail_beyond(const git_oid *commit, const char *what, memfs_error *err)
{
    return memfs_fail(err, MEMFS_EDENIED, "commit %.12s holds %s, far beyond what a memory may: it "
                      "cannot come in with its history", git_oid_tostr_s(commit), what);
}

static memfs_code judge_tree(history *h, const git_oid *commit, const git_oid *tree,
                             memfs_error *err)
{
    memfs_oid id;
    facts sum;
    memfs_code rc;

    repo_memfs_oid(tree, &id);
    buf_clear(&h->t.path);
    rc = vet_sum(&h->t, &id, &sum, err);
    if (rc == MEMFS_EDENIED || (rc == MEMFS_OK && sum.depth > h->bounds.max_depth))
        return fail_beyond(commit, h->t.work > h->t.max_work ? "too much at once"
                                                             : "folders nested too deep", err);
    if (rc == MEMFS_OK && sum.n_entries > h->bounds.max_entries)
        return fail_beyond(commit, "too many files", err);
    return rc;
}

static memfs_code judge_commit(history *h, const git_oid *id, memfs_error *err)
{
    _cleanup_(git_commit_freep) git_commit *commit = NULL;
    memfs_code rc;

    if (++h->n_commits > MAX_COMMITS)
        return memfs_fail(err, MEMFS_EDENIED, "more than %d new commits", MAX_COMMITS);
    rc = look_up(h, id, &commit, err);
    if (rc == MEMFS_OK)
        rc = policy_commit_dates(h->t.p, git_commit_author(commit)->when.time,
                                 git_commit_committer(commit)->when.time, err);
    if (rc < 0)
        return rc == MEMFS_EDENIED
                   ? memfs_context(err, "commit %.12s", git_oid_tostr_s(id)) : rc;
    return judge_tree(h, id, git_commit_tree_id(commit), err);
}

static bool is_known(const history *h, const git_oid *id)
{
    for (size_t i = 0; i < h->n_known; i++)
        if (git_oid_equal(&h->known[i], id))
            return true;
    return false;
}

/* From tip down to a known commit, or to a root.  False: it is not as simple as that. */
static bool list_line(const history *h, const git_oid *tip, git_oid *list, size_t *ret_n)
{
    git_oid at = *tip;

    for (*ret_n = 0; !is_known(h, &at); (*ret_n)++) {
        _cleanup_(git_commit_freep) git_commit *commit = NULL;

        if (*ret_n == LINE_MAX_COMMITS || git_commit_lookup(&commit, h->t.r->view, &at) < 0 ||
            git_commit_parentcount(commit) > 1)
            return false;
        list[*ret_n] = at;
        if (git_commit_parentcount(commit) == 0) {
            ++*ret_n;
            return true;
        }
        at = *git_commit_parent_id(commit, 0);
    }
    return true;
}

static memfs_code judge_graph(history *h, const git_oid *tip, memfs_error *err)
{
    _cleanup_(git_revwalk_freep) git_revwalk *walk = NULL;
    memfs_code code = MEMFS_OK;
    git_oid id;
    int rc = git_revwalk_new(&walk, h->t.r->view);

    if (rc == 0)
        rc = git_revwalk_push(walk, tip);
    for (size_t i = 0; rc == 0 && i < h->n_known; i++)
        rc = git_revwalk_hide(walk, &h->known[i]);
    while (code == MEMFS_OK && rc == 0 && (rc = git_revwalk_next(&id, walk)) == 0)
        code = judge_commit(h, &id, err);
    if (code < 0 || rc == GIT_ITEROVER)
        return code;
    return store_fail_git(err, rc, "could not list the new commits");
}

static memfs_code judge(history *h, const memfs_oid *tip, memfs_error *err)
{
    git_oid list[LINE_MAX_COMMITS + 1], id;
    memfs_code rc = MEMFS_OK;
    size_t n;

    repo_git_oid(tip, &id);
    if (!list_line(h, &id, list, &n))
        return judge_graph(h, &id, err);
    for (size_t i = 0; rc == MEMFS_OK && i < n; i++)
        rc = judge_commit(h, &list[i], err);
    return rc;
}

memfs_code vet_history(repo *r, const incoming_vetting *v, const memfs_oid *known, size_t n_known,
                       memfs_error *err)
{
    _cleanup_(history_dispose) history h = { .bounds = store_policy_of_history(v->policy) };
    incoming_vetting bounded = *v;

    bounded.policy = &h.bounds;
    vet_init(&h.t, r, &bounded);
    h.t.judges = false;
    h.t.skips_files = true;
    h.t.max_work = MAX_ENTRIES;
    for (size_t i = 0; i < n_known && h.n_known < VET_TIP_MAX_KNOWN; i++)
        if (!oid_is_zero(&known[i]))
            repo_git_oid(&known[i], &h.known[h.n_known++]);
    return judge(&h, v->tip, err);
}
