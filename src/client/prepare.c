#include "client/prepare_int.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * The steps, each of which looks first and writes only what is missing:
 *
 *   1. root/, and the lock in it: 32 preparations of one memory take turns
 *   2. memory/.git, by one rename (checkout_create)
 *   3. files that lay in the folder before it was a repository: committed on top of the genesis
 *   4. a branch main without a commit (a clone of an empty remote): the genesis
 *   5. .git/config, in one rewrite; .git/info/attributes
 *   6. refs/remotes/origin/main, at least the genesis
 *   7. memory/system/
 *
 * A kill between any two leaves a repository that git accepts and the next preparation goes on
 * from. That step 3 is not done cannot be seen from the repository itself: the turn's journal says
 * "adopting", synced, before step 2.
 */

#define LOCK_NAME "memory.memfs.lock"
#define LOCK_WAIT_MS 30000
#define ADOPTING "adopting"
#define EMPTY_IS_OLD_S 5

static const store_identity GENESIS_AUTHOR = { "memfs", "memfs@localhost", 0 };

void prepared_dispose(prepared *p)
{
    buf_dispose(&p->notes);
}

/* 1. the turn */

static memfs_code take_turn(preparation *w, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/" LOCK_NAME, w->p->root);
    memfs_code rc = turn_take(path, clock_mono_ms() + LOCK_WAIT_MS, &w->turn, err);

    if (rc == MEMFS_EUNAVAIL)
        return memfs_fail(err, MEMFS_EUNAVAIL,
                          "another memfs has been preparing this memory for %d s; look for it with "
                          "'fuser' on '%s'",
                          LOCK_WAIT_MS / 1000, path);
    if (rc < 0)
        return rc;
    w->is_adopting = strcmp(w->turn.found, ADOPTING) == 0;
    if (turn_was_killed(&w->turn) && fs_is_dir(w->git_dir))
        turn_sweep(w->git_dir);
    return MEMFS_OK;
}

static memfs_code begin(preparation *w, memfs_error *err)
{
    return turn_begin(&w->turn, w->is_adopting ? ADOPTING : NULL, err);
}

static memfs_code begin_adopting(preparation *w, memfs_error *err)
{
    memfs_code rc;

    w->is_adopting = true;
    rc = begin(w, err);
    return rc == MEMFS_OK ? turn_sync(&w->turn, err) : rc;
}

static memfs_code end_adopting(preparation *w, memfs_error *err)
{
    w->is_adopting = false;
    return turn_begin(&w->turn, "working", err);
}

/* 2. the repository */

static bool has_entries(const char *folder)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    bool found = false;

    while (d != NULL && !found && (e = readdir(d)) != NULL)
        found = strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (d != NULL)
        closedir(d);
    return found;
}

static memfs_code check_place(const preparation *w, memfs_error *err)
{
    if (fs_exists(w->p->memory) && !fs_is_dir(w->p->memory))
        return memfs_fail(err, MEMFS_EINVALID,
                          "'%s' is a file; a memory is a folder: move it away", w->p->memory);
    if (fs_exists(w->git_dir) && !fs_is_dir(w->git_dir))
        return memfs_fail(err, MEMFS_EINVALID,
                          "'%s' is a file (a linked worktree or submodule); Letta's clients need a "
                          "folder there",
                          w->git_dir);
    return MEMFS_OK;
}

/*
 * A client that was killed between its first two calls leaves an empty .git; one that works right
 * now has a young one.
 */
static void remove_empty(const char *git_dir)
{
    struct stat st;

    if (lstat(git_dir, &st) == 0 && S_ISDIR(st.st_mode) &&
        st.st_mtim.tv_sec + EMPTY_IS_OLD_S < clock_wall_us() / 1000000)
        (void)!rmdir(git_dir); /* fails if it is not empty */
}

static memfs_code make_repository(preparation *w, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    remove_empty(w->git_dir);
    if (fs_is_dir(w->git_dir)) {
        if (turn_was_killed(&w->turn)) /* it finds a repository, and removes what lies beside it */
            rc = checkout_create(w->p->memory, false, err);
        return rc == MEMFS_EEXISTS ? MEMFS_OK : rc;
    }
    rc = has_entries(w->p->memory) ? begin_adopting(w, err) : begin(w, err);
    if (rc == MEMFS_OK)
        rc = checkout_create(w->p->memory, false, err);
    if (rc == MEMFS_EEXISTS) /* a client's clone was faster: a repository with a history */
        return end_adopting(w, err);
    w->ret->was_created = rc == MEMFS_OK;
    return rc < 0 ? memfs_context(err, "could not make the repository") : MEMFS_OK;
}

static memfs_code open_repository(const preparation *w, checkout **ret, memfs_error *err)
{
    memfs_code rc = checkout_open(w->p->memory, ret, err);

    if (rc == MEMFS_ENOTFOUND)
        return memfs_fail(err, MEMFS_ECORRUPT,
                          "'%s' is no repository that git could open; move it away, and 'memfs "
                          "apply' makes a new one around your files",
                          w->git_dir);
    return rc;
}

/* 3. files that were here */

static void skipped(memfs_str path, const char *why, void *ctx)
{
    prepared *ret = ctx;

    ret->n_skipped++;
    if (ret->n_skipped <= 20)
        buf_printf(&ret->notes, "'%.*s' was not taken in: %s\n", (int)path.len, path.ptr, why);
}

static memfs_code adopt(preparation *w, checkout *c, memfs_error *err)
{
    _cleanup_(mem_freep) char *email = mem_printf("%s@letta.com", w->p->agent_id);
    const store_identity who = { "memfs", email, clock_wall_us() / 1000000 };
    const policy rules = POLICY_INIT;
    memfs_oid ignored;
    memfs_code rc;

    if (!w->is_adopting)
        return MEMFS_OK;
    rc = checkout_commit_all(c, &rules, &who, "memfs: adopt the files that were here\n", skipped,
                             w->ret, &ignored, err);
    if (rc < 0)
        return memfs_context(err, "could not take in the files that were here");
    w->ret->was_adopted = true;
    return end_adopting(w, err);
}

/* 4. and 6. refs */

/* 4b825dc642cb6eb9a060e54bf8d69288fbee4904, which git knows without being told */
static const memfs_oid EMPTY_TREE = { { 0x4b, 0x82, 0x5d, 0xc6, 0x42, 0xcb, 0x6e, 0xb9, 0xa0, 0x60,
                                        0xe5, 0x4b, 0xf8, 0xd6, 0x92, 0x88, 0xfb, 0xee, 0x49,
                                        0x04 } };

static memfs_code write_genesis(checkout *c, memfs_error *err)
{
    memfs_oid made;
    memfs_code rc = checkout_commit_tree(c, &EMPTY_TREE, NULL, 0, &GENESIS_AUTHOR,
                                         "memfs: genesis\n", &made, err);

    if (rc == MEMFS_OK && !oid_equal(&made, &STORE_GENESIS))
        return memfs_fail(err, MEMFS_EINTERNAL, "the first commit came out with another id");
    return rc;
}

/* The branch is there by name only: whoever cloned an empty remote. */
static memfs_code give_birth(preparation *w, checkout *c, memfs_error *err)
{
    static const memfs_oid none;
    checkout_state state;
    memfs_oid id;
    memfs_code rc = checkout_ref(c, STORE_MAIN, &id, err);

    if (rc != MEMFS_ENOTFOUND)
        return rc;
    rc = checkout_inspect(c, &state, err);
    if (rc < 0 || state.has_head || state.is_detached || strcmp(state.branch, "main") != 0)
        return rc; /* somebody works on another branch: converge says so */
    rc = begin(w, err);
    if (rc == MEMFS_OK)
        rc = write_genesis(c, err);
    if (rc == MEMFS_OK)
        rc = checkout_ref_move(c, STORE_MAIN, &none, &STORE_GENESIS, "memfs: genesis", err);
    return rc == MEMFS_ECONFLICT ? MEMFS_OK : rc; /* a commit came in between */
}

/*
 * What the remote is known to have.  Without it the client never pushes (contract client 0, fact
 * 2); a memory that did not begin with the genesis gets it when it first meets its remote.
 */
static memfs_code track(preparation *w, checkout *c, bool is_other_origin, memfs_error *err)
{
    static const char name[] = "refs/remotes/origin/main";
    memfs_oid now = { { 0 } }, tip;
    bool has_genesis = false;
    memfs_code rc = checkout_ref(c, name, &now, err);

    if (rc == MEMFS_OK && !is_other_origin)
        return MEMFS_OK;
    if (rc < 0 && rc != MEMFS_ENOTFOUND)
        return rc;
    rc = checkout_ref(c, STORE_MAIN, &tip, err);
    if (rc == MEMFS_OK)
        rc = repo_is_ancestor(checkout_repo(c), &STORE_GENESIS, &tip, &has_genesis, err);
    if (rc < 0)
        return rc == MEMFS_ENOTFOUND || rc == MEMFS_ECORRUPT ? MEMFS_OK : rc;
    if (!has_genesis && oid_is_zero(&now))
        return MEMFS_OK;
    rc = begin(w, err);
    if (rc == MEMFS_OK)
        rc = checkout_ref_move(c, name, &now, has_genesis ? &STORE_GENESIS : NULL,
                               "memfs: known of origin", err);
    return rc == MEMFS_ECONFLICT ? MEMFS_OK : rc; /* a fetch knows better */
}

/* 5. configuration */

static memfs_code before_config(void *ctx, memfs_error *err)
{
    return begin(ctx, err);
}

static memfs_code configure(preparation *w, bool *ret_other_origin, memfs_error *err)
{
    configuring c = { w->s,          w->git_dir, w->p->agent_id, w->choice, w->ret,
                      before_config, w,          false };
    memfs_code rc = prepare_config_apply(&c, err);

    *ret_other_origin = c.is_other_origin;
    return rc == MEMFS_OK ? prepare_attributes(w->git_dir, w->ret, err) : rc;
}

/* 7. the folder that every memory has */

static memfs_code make_system(const place *p, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/system", p->memory);
    _cleanup_(mem_freep) char *second = mem_printf("%s/MEMORY.md", p->memory);

    if (fs_exists(path) || fs_exists(second)) /* the second layout has its blocks at the root */
        return MEMFS_OK;
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        return memfs_fail_errno(err, "could not make 'system/'");
    return MEMFS_OK;
}

static memfs_code steps(preparation *w, memfs_error *err)
{
    _cleanup_(checkout_closep) checkout *c = NULL;
    bool is_other_origin = false;
    memfs_code rc;

    rc = make_repository(w, err);
    if (rc == MEMFS_OK)
        rc = open_repository(w, &c, err);
    if (rc == MEMFS_OK)
        rc = adopt(w, c, err);
    if (rc == MEMFS_OK)
        rc = give_birth(w, c, err);
    if (rc == MEMFS_OK)
        rc = configure(w, &is_other_origin, err);
    if (rc == MEMFS_OK)
        rc = track(w, c, is_other_origin, err);
    if (rc == MEMFS_OK)
        rc = make_system(w->p, err);
    return rc == MEMFS_OK ? turn_end(&w->turn, err) : rc;
}

memfs_code prepare(const settings *s, const place *p, const backend_choice *choice, prepared *ret,
                   memfs_error *err)
{
    preparation w = { .s = s, .p = p, .choice = choice, .ret = ret, .turn = TURN_INIT };
    memfs_code rc;

    if (snprintf(w.git_dir, sizeof(w.git_dir), "%s/.git", p->memory) >= (int)sizeof(w.git_dir))
        return memfs_fail(err, MEMFS_EINVALID, "the path of the memory is too long");
    rc = checkout_library(err);
    if (rc == MEMFS_OK)
        rc = check_place(&w, err);
    if (rc == MEMFS_OK)
        rc = fs_mkdirs(p->root, err);
    if (rc == MEMFS_OK)
        rc = take_turn(&w, err);
    if (rc == MEMFS_OK)
        rc = steps(&w, err);
    turn_leave(&w.turn);
    return rc;
}
