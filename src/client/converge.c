#include "client/converge_int.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "client/hub.h"
#include "client/mirror.h"
#include "client/rescue.h"
#include "store/history.h"
#include "store/merge.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * One memory's journey.  Everything that may come together has a ref:
 *
 *   refs/heads/main            what the agent works on
 *   refs/memfs/synced          everything merged so far, while main could not follow
 *   refs/memfs/pending/<name>  a subagent's finished branch
 *   the hub's main             what clients pushed through git-remote-memfs
 *   refs/memfs/incoming/<n>    what a fetch brought; judged before it is merged
 *
 * `ours` begins as main and takes them in one after the other.  Whenever it grows beyond main it is
 * first written down as refs/memfs/synced, so a crash at any later moment loses no merge; only then
 * are the sources dropped, the remote told, and the checkout asked to follow.  Merging needs
 * nothing but objects, so a checkout that cannot change now (dirty, rebasing, on another branch)
 * holds up nobody: the merge is pushed, and main follows with a later sync.
 *
 * Invariants
 *   1. main moves by checkout_update only, which wants a calm and clean checkout; everything else moves refs of
 *      ours.
 *   2. nothing that came over a wire is merged before vet_tip has passed it.
 *   3. a push carries `ours`, which contains what was fetched; nothing is forced.
 *   4. one process at a time works on a memory (turn.h); agents and clients do not take part in that,
 *      so every ref is moved by compare-and-swap and a lost race begins again.
 */

#define SETTLE_TRIES 3
#define MERGED_LOG "merged.log"

/* what was decided by rule, for status and undo: "<unix time> <commit> <number of decisions>" */
static memfs_code log_merge(convergence *v, const merge_result *m, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = checkout_note_path(v->c, MERGED_LOG);
    char hex[MEMFS_OID_HEX + 1], line[120];
    int fd, n;
    bool is_written;

    oid_hex(&m->commit, hex);
    n = snprintf(line, sizeof(line), "%lld %s %zu\n", (long long)(clock_wall_us() / 1000000), hex,
                 m->n_notes);
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return memfs_fail_errno(err, "could not open '" MERGED_LOG "'");
    is_written = write(fd, line, (size_t)n) == n && fsync(fd) == 0;
    if (!is_written)
        memfs_fail_errno(err, "could not write '" MERGED_LOG "'");
    close(fd);
    return is_written ? MEMFS_OK : err->code;
}

bool converge_has(convergence *v, const memfs_oid *commit, const memfs_oid *of)
{
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    bool is_ancestor = false;
    memfs_error ignored;

    if (oid_is_zero(of))
        return false;
    if (oid_equal(commit, of))
        return true;
    return repo_commit_info(checkout_repo(v->c), commit, &info, &ignored) == MEMFS_OK &&
           repo_is_ancestor(checkout_repo(v->c), commit, of, &is_ancestor, &ignored) == MEMFS_OK &&
           is_ancestor;
}

/* refs/memfs/synced says what ours is, as long as main does not. */
static memfs_code write_down(convergence *v, memfs_error *err)
{
    memfs_code rc;

    if (oid_equal(&v->ours, &v->main) || oid_equal(&v->ours, &v->synced))
        return MEMFS_OK;
    rc = turn_begin(&v->turn, NULL, err);
    if (rc == MEMFS_OK)
        rc = checkout_ref_move(v->c, REF_SYNCED, &v->synced, &v->ours, "memfs: merged", err);
    if (rc == MEMFS_OK)
        v->synced = v->ours;
    return rc;
}

memfs_code converge_take(convergence *v, const memfs_oid *theirs, memfs_error *err)
{
    _cleanup_(merge_result_dispose) merge_result m = MERGE_RESULT_INIT;
    memfs_code rc;

    if (converge_has(v, theirs, &v->ours))
        return MEMFS_OK;
    if (oid_is_zero(&v->ours)) {
        v->ours = *theirs;
        return write_down(v, err);
    }
    rc = merge_commits(checkout_repo(v->c), &v->ours, theirs, &m, err);
    if (rc < 0)
        return memfs_context(err, "could not merge");
    if (m.is_merge)
        v->ret->was_merged = true;
    if (m.is_merge && m.n_notes > 0)
        rc = log_merge(v, &m, err);
    v->ours = m.commit;
    return rc == MEMFS_OK ? write_down(v, err) : rc;
}

/* the checkout follows */

static memfs_code drop_synced(convergence *v, memfs_error *err)
{
    memfs_code rc;

    if (oid_is_zero(&v->synced))
        return MEMFS_OK;
    rc = turn_begin(&v->turn, NULL, err);
    if (rc == MEMFS_OK)
        rc = checkout_ref_move(v->c, REF_SYNCED, &v->synced, NULL, "memfs: main has it", err);
    if (rc == MEMFS_OK || rc == MEMFS_ENOTFOUND)
        memset(&v->synced, 0, sizeof(v->synced));
    return rc == MEMFS_ENOTFOUND ? MEMFS_OK : rc;
}

/* A commit of the agent's came in between: merged as well. */
static memfs_code take_newer_main(convergence *v, bool *ret_moved, memfs_error *err)
{
    memfs_oid now;
    memfs_code rc = checkout_ref(v->c, STORE_MAIN, &now, err);

    *ret_moved = rc == MEMFS_OK && !oid_equal(&now, &v->main);
    if (!*ret_moved)
        return rc == MEMFS_ENOTFOUND ? MEMFS_OK : rc;
    v->main = now;
    return converge_take(v, &now, err);
}

static void say_held_back(convergence *v, const checkout_update_report *update)
{
    checkout_state state;
    memfs_error err = MEMFS_ERROR_INIT;

    if (checkout_inspect(v->c, &state, &err) == MEMFS_OK)
        look_held_back(&state, v->ret->held_back, sizeof(v->ret->held_back));
    if (v->ret->held_back[0] == '\0' && update->in_the_way[0] != '\0')
        snprintf(v->ret->held_back, sizeof(v->ret->held_back), "'%s' is in the way",
                 update->in_the_way);
    if (v->ret->held_back[0] == '\0')
        snprintf(v->ret->held_back, sizeof(v->ret->held_back), "somebody works in the checkout");
}

memfs_code converge_settle(convergence *v, memfs_error *err)
{
    checkout_update_report update = { .n_written = 0 };
    bool was_moved = true;
    memfs_code rc = MEMFS_OK;

    v->ret->held_back[0] = '\0';
    for (int i = 0; i < SETTLE_TRIES && was_moved && rc == MEMFS_OK; i++) {
        if (oid_equal(&v->ours, &v->main))
            return drop_synced(v, err);
        rc = turn_begin(&v->turn, NULL, err);
        if (rc == MEMFS_OK)
            rc = checkout_update(v->c, &v->main, &v->ours, "memfs: sync", &update, err);
        if (rc == MEMFS_OK) {
            v->main = v->ours;
            v->ret->was_updated = true;
            return drop_synced(v, err);
        }
        if (rc == MEMFS_ECONFLICT)
            rc = take_newer_main(v, &was_moved, err);
    }
    if (rc == MEMFS_OK || rc == MEMFS_EUNAVAIL) { /* EUNAVAIL: git holds a lock right now */
        say_held_back(v, &update);
        return MEMFS_OK;
    }
    return rc;
}

/* beginning and end */

static memfs_code read_ref(convergence *v, const char *name, memfs_oid *ret, memfs_error *err)
{
    memfs_code rc = checkout_ref(v->c, name, ret, err);

    if (rc == MEMFS_ENOTFOUND)
        memset(ret, 0, sizeof(*ret));
    return rc == MEMFS_ENOTFOUND ? MEMFS_OK : rc;
}

static memfs_code read_tips(convergence *v, memfs_error *err)
{
    memfs_code rc = read_ref(v, STORE_MAIN, &v->main, err);

    v->ours = v->main;
    return rc == MEMFS_OK ? read_ref(v, REF_SYNCED, &v->synced, err) : rc;
}

typedef struct pending {
    char *name;
    memfs_oid id;
} pending;
typedef struct pendings {
    pending *at;
    size_t n;
} pendings;

static void pendings_dispose(pendings *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->at[i].name);
    free(list->at);
}

static memfs_code note_pending(const char *name, const memfs_oid *id, void *ctx, memfs_error *err)
{
    pendings *list = ctx;

    (void)err;
    list->at = mem_realloc(list->at, list->n + 1, sizeof(*list->at));
    list->at[list->n++] = (pending){ mem_strdup(name), *id };
    return MEMFS_OK;
}

/* Subagents' finished work: once it is written down in synced or main, its own ref goes. */
static memfs_code take_pending(convergence *v, memfs_error *err)
{
    _cleanup_(pendings_dispose) pendings list = { NULL, 0 };
    memfs_code rc = checkout_each_ref(v->c, WORKTREES_PENDING, note_pending, &list, err);

    for (size_t i = 0; rc == MEMFS_OK && i < list.n; i++) {
        rc = converge_take(v, &list.at[i].id, err);
        if (rc == MEMFS_OK)
            rc = turn_begin(&v->turn, NULL, err);
        if (rc == MEMFS_OK)
            rc = checkout_ref_move(v->c, list.at[i].name, &list.at[i].id, NULL, "memfs: merged", err);
        if (rc == MEMFS_ECONFLICT || rc == MEMFS_ENOTFOUND)
            rc = MEMFS_OK; /* it has grown, or another took it */
    }
    return rc;
}

static memfs_code take_turn(convergence *v, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = checkout_note_path(v->c, "lock");
    memfs_code rc = turn_take(path, v->deadline_ms, &v->turn, err);

    if (rc == MEMFS_EUNAVAIL)
        return memfs_fail(err, MEMFS_EUNAVAIL, "another memfs is syncing this memory right now");
    if (rc == MEMFS_OK && turn_was_killed(&v->turn))
        turn_sweep(checkout_common_dir(v->c));
    return rc;
}

/* With the turn taken. */
static memfs_code travel(convergence *v, memfs_error *err)
{
    bool ignored;
    memfs_code rc = checkout_recover(v->c, &ignored, err);

    if (rc == MEMFS_OK)
        rc = read_tips(v, err);
    if (rc == MEMFS_OK && !oid_is_zero(&v->synced))
        rc = converge_take(v, &v->synced, err);
    if (rc == MEMFS_OK)
        rc = take_pending(v, err);
    if (rc == MEMFS_OK)
        rc = converge_hub_in(v, err);
    if (rc == MEMFS_OK)
        rc = converge_settle(v, err);
    if (rc == MEMFS_OK && v->choice->has_remote && !v->o->only_local)
        rc = converge_remote(v, err);
    if (rc == MEMFS_OK)
        rc = converge_hub_out(v, err);
    return rc == MEMFS_OK ? turn_end(&v->turn, err) : rc;
}

/*
 * Not before what a killed undo, restore or import left is in order: files half there, locks of
 * git's.
 */
static bool may_rest(convergence *v)
{
    memfs_error ignored;
    bool did;

    return v->o->believe_memory && checkout_recover(v->c, &did, &ignored) == MEMFS_OK &&
           converge_may_rest(v);
}

static memfs_code travel_in_turn(convergence *v, memfs_error *err)
{
    memfs_code rc;

    if (may_rest(v))
        return MEMFS_OK;
    rc = take_turn(v, err);
    if (rc == MEMFS_OK)
        rc = travel(v, err);
    turn_leave(&v->turn);
    return rc;
}

memfs_code converge_open(convergence *v, memfs_error *err)
{
    _cleanup_(mem_freep) char *hub = NULL;
    memfs_code rc;

    if (v->hub != NULL)
        return checkout_open(v->hub, &v->c, err);
    rc = checkout_open(v->p->memory, &v->c, err);
    if (rc != MEMFS_ENOTFOUND || !hub_is_there(v->s, v->p->agent_id))
        return rc;
    hub = hub_path(v->s, v->p->agent_id, NULL);
    rc = checkout_open(hub, &v->c, err);
    if (rc == MEMFS_OK) {
        free(v->ret->memory);
        v->ret->memory = TAKE_PTR(hub);
    }
    return rc;
}

/* What a sync does beside the journey: old rescues go, waiting mirrors are tried. */
static memfs_code tend(convergence *v, memfs_error *err)
{
    int64_t left_ms = v->deadline_ms - clock_mono_ms();
    size_t n_left;
    memfs_code rc = rescue_tidy(v->c, &n_left, err);

    if (rc == MEMFS_OK && left_ms > 0 && mirror_queued(v->c) > 0)
        rc = mirror_run(v->s, v->c, false, left_ms, err);
    return rc == MEMFS_EUNAVAIL ? MEMFS_OK : rc; /* the report counts what waits */
}

static void converge(convergence *v)
{
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = converge_open(v, &err);

    v->ret->is_there = rc == MEMFS_OK;
    if (rc == MEMFS_OK)
        rc = travel_in_turn(v, &err);
    if (rc == MEMFS_OK && !v->o->believe_memory)
        rc = tend(v, &err);
    if (rc < 0 && v->ret->is_there)
        v->ret->error = err;
    if (rc < 0 && !v->ret->is_there && rc != MEMFS_ENOTFOUND)
        v->ret->error = err;
    if (v->c != NULL)
        look_checkout(v);
    checkout_close(v->c);
}

/* What prepare has to say goes where the reader looks. */
static bool prepare_first(const settings *s, const place *p, const backend_choice *choice,
                          client_report *ret)
{
    _cleanup_(prepared_dispose) prepared done = PREPARED_INIT;

    if (prepare(s, p, choice, &done, &ret->error) < 0)
        return false;
    ret->error.code = MEMFS_OK;
    ret->was_created = done.was_created;
    ret->was_adopted = done.was_adopted;
    if (done.notes.len > 0) {
        free(ret->notes);
        ret->notes = buf_take(&done.notes, NULL);
    }
    return true;
}

static bool choose(const settings *s, const place *p, backend_choice *ret, client_report *report)
{
    memfs_error err = MEMFS_ERROR_INIT;

    if (backend_choose(s, p, ret, &err) == MEMFS_OK)
        return true;
    report->error = err;
    return false;
}

static void work(const settings *s, const place *p, const converge_options *o, bool is_apply,
                 client_report *ret)
{
    _cleanup_(backend_choice_dispose) backend_choice choice = BACKEND_CHOICE_INIT;
    convergence v = { .s = s, .p = p, .o = o, .ret = ret, .choice = &choice, .turn = TURN_INIT };
    _cleanup_(mem_freep) char *git_dir = mem_printf("%s/.git", p->memory);

    v.deadline_ms = clock_mono_ms() + o->budget_ms;
    if (!choose(s, p, &choice, ret))
        return;
    look_identify(p, &choice, ret);
    if (choice.is_off)
        return;
    if ((is_apply || fs_exists(git_dir)) && !prepare_first(s, p, &choice, ret))
        return;
    converge(&v);
}

/* A shared repository lies beside the agent's memory, at the Letta endpoint alone. */
static bool aim_at_mount(const char *name, backend_choice *choice)
{
    _cleanup_(mem_freep) char *text = NULL;
    remote_url url = REMOTE_URL_INIT;
    memfs_error ignored;

    if (!choice->has_remote || !choice->is_letta ||
        !hub_mount_url(choice->target.url.text, name, &text) ||
        url_parse(text, &url, &ignored) < 0)
        return false;
    url_dispose(&choice->target.url);
    choice->target.url = url;
    return true;
}

void client_sync_hub(const settings *s, const place *p, const char *name,
                     const converge_options *o, client_report *ret)
{
    _cleanup_(backend_choice_dispose) backend_choice choice = BACKEND_CHOICE_INIT;
    _cleanup_(mem_freep) char *hub = hub_path(s, p->agent_id, name);
    convergence v = { .s = s, .p = p, .o = o, .ret = ret, .choice = &choice, .hub = hub,
                      .turn = TURN_INIT };

    v.deadline_ms = clock_mono_ms() + o->budget_ms;
    if (!choose(s, p, &choice, ret))
        return;
    if (name != NULL)
        choice.has_remote = aim_at_mount(name, &choice);
    look_identify(p, &choice, ret);
    free(ret->memory);
    ret->memory = mem_strdup(hub);
    if (!choice.is_off && choice.has_remote)
        converge(&v);
}

void client_apply(const settings *s, const place *p, const converge_options *o, client_report *ret)
{
    work(s, p, o, true, ret);
}

void client_sync(const settings *s, const place *p, const converge_options *o, client_report *ret)
{
    work(s, p, o, false, ret);
}
