/*
 * The mirror: two homes in one process, one bare repository between them, all that can become of an
 * exchange.  Most tests run it by hand (is_manual), so that every step is told; those of the
 * scheduler wait for states, never for a time.
 */
#include "sync_fixture.h"

#include "base/hash.h"
#include "mirror/pairs.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define WAIT_MS 60000
#define DEADLINE (clock_mono_ms() + WAIT_MS)

typedef struct side {
    fixture *f;
    _Atomic(mirror *) m;   /* its own workers read it, in on_moved */
    pthread_mutex_t mutex; /* guards events */
    memfs_buf events;
} side;

typedef struct duo {
    side a, b;
    char *remote; /* the bare repository of AGENT_A */
    char *far;    /* somebody else's clone of it */
} duo;

/* ---- a side ---- */

static void on_moved(const char *id, void *ctx)
{
    side *s = ctx;
    mirror *m = s->m;

    if (m != NULL)
        mirror_moved(m, id);
}

static void on_event(const char *event, const char *id, const char *remote, const char *text,
                     void *ctx)
{
    side *s = ctx;

    pthread_mutex_lock(&s->mutex);
    buf_printf(&s->events, "%s %s %s %s\n", event, id != NULL ? id : "-",
               remote != NULL ? remote : "-", text);
    pthread_mutex_unlock(&s->mutex);
}

static bool has_event(side *s, const char *part)
{
    bool has;

    pthread_mutex_lock(&s->mutex);
    has = strstr(s->events.ptr, part) != NULL;
    pthread_mutex_unlock(&s->mutex);
    return has;
}

static void side_begin(side *s)
{
    fixture_begin((void **)&s->f);
    close_home(s->f);
    s->f->options.moved = on_moved;
    s->f->options.moved_ctx = s;
    open_home(s->f);
    pthread_mutex_init(&s->mutex, NULL);
    s->events = (memfs_buf)MEMFS_BUF_INIT(8u << 20);
}

static void side_stop(side *s)
{
    mirror_stop(s->m, 0);
    s->m = NULL;
}

static void side_end(side *s)
{
    side_stop(s);
    fixture_end((void **)&s->f);
    buf_dispose(&s->events);
    pthread_mutex_destroy(&s->mutex);
}

static void configure(side *s, const char *text)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/config", s->f->path);

    OK(fs_write_atomic(path, str_of(text), 0600, &err));
}

static remotes *load_remotes(side *s)
{
    remotes_options o = { .home = s->f->path };
    remotes *r = NULL;

    OK(remotes_load(&o, &r, &err));
    return r;
}

static void side_start(side *s, bool is_manual)
{
    mirror_options o = { .home = s->f->h, .remotes = load_remotes(s), .is_manual = is_manual,
                         .event = on_event, .event_ctx = s };
    mirror *m = NULL;

    OK(mirror_start(&o, &m, &err));
    s->m = m;
}

/* both sides mirror `remote`, in a section with these further lines */
static void start(duo *d, const char *more_a, const char *more_b, bool is_manual)
{
    for (int i = 0; i < 2; i++) {
        side *s = i == 0 ? &d->a : &d->b;
        _cleanup_(mem_freep) char *text =
            mem_printf("[mirror \"origin\"]\n\turl = %s/remote/{agentId}.git\n%s", d->a.f->root,
                       i == 0 ? more_a : more_b);

        configure(s, text);
        side_start(s, is_manual);
    }
}

static void make_remote(duo *d)
{
    git(d->a.f->root, "init", "-q", "--bare", "-b", "main", d->remote);
}

static int duo_begin(void **state)
{
    duo *d = mem_alloc(sizeof(*d));
    _cleanup_(mem_freep) char *folder = NULL;

    side_begin(&d->a);
    side_begin(&d->b);
    folder = mem_printf("%s/remote", d->a.f->root);
    OK(fs_mkdirs(folder, &err));
    d->remote = mem_printf("%s/" AGENT_A ".git", folder);
    d->far = mem_printf("%s/far", d->a.f->root);
    make_remote(d);
    *state = d;
    return 0;
}

static int duo_end(void **state)
{
    duo *d = *state;

    side_stop(&d->a); /* before its root goes, in which the remote is */
    side_end(&d->b);
    side_end(&d->a);
    free(d->remote);
    free(d->far);
    free(d);
    return 0;
}

/* ---- doing ---- */

/* A client's commit, on top of what the home has, pushed to it. */
static memfs_oid edit(side *s, const char *path, const char *text)
{
    _cleanup_(mem_freep) char *repo = mem_printf("%s/" REPO_A, s->f->path);

    if (fs_exists(repo)) {
        git(s->f->work, "fetch", "-q", repo, "main");
        git(s->f->work, "reset", "-q", "--hard", "FETCH_HEAD");
    }
    put_file(s->f->work, path, str_of(text));
    return push_work(s->f, ID_A);
}

static mirror_outcome sync_now(side *s)
{
    mirror_outcome o;

    mirror_sync(s->m, AGENT_A, DEADLINE, &o);
    return o;
}

static void must_sync(side *s)
{
    mirror_outcome o = sync_now(s);

    if (o.n_failed > 0)
        fail_msg("%s", o.failure);
    assert_int_equal(o.n_remotes, 1);
}

static exchange_result exchange_now(side *s, unsigned wants)
{
    exchange_result r;

    OK(mirror_exchange(s->m, ID_A, "origin", wants, DEADLINE, &r, &err));
    return r;
}

/* Somebody else's clone, as the remote is now. */
static void far_update(duo *d)
{
    if (!fs_exists(d->far))
        git(d->a.f->root, "clone", "-q", d->remote, d->far);
    git(d->far, "fetch", "-q", "origin");
    git(d->far, "checkout", "-q", "-B", "main", "origin/main");
}

static memfs_oid far_commit(duo *d, const char *path, const char *text)
{
    far_update(d);
    put_file(d->far, path, str_of(text));
    commit_all(d->far, "far");
    git(d->far, "push", "-q", "origin", "HEAD:refs/heads/main");
    return git_id(d->far, "HEAD");
}

static memfs_oid remote_tip(duo *d)
{
    return git_id(d->remote, "refs/heads/main");
}

static bool remote_has_main(duo *d)
{
    _cleanup_(mem_freep) char *loose = mem_printf("%s/refs/heads/main", d->remote);

    return fs_exists(loose);
}

static bool same(memfs_oid a, memfs_oid b)
{
    return oid_equal(&a, &b);
}

static bool is_ancestor(const char *dir, memfs_oid a, memfs_oid b)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    char x[MEMFS_OID_HEX + 1], y[MEMFS_OID_HEX + 1];
    const char *const args[] = { "merge-base", "--is-ancestor", x, y, NULL };

    oid_hex(&a, x);
    oid_hex(&b, y);
    return git_in(dir, MEMFS_STR(""), &out, args) == MEMFS_OK;
}

static void assert_all_at(duo *d, memfs_oid tip)
{
    assert_true(same(tip_of(d->a.f, ID_A), tip));
    assert_true(same(remote_tip(d), tip));
}

/* Without its last line end. */
static const char *block(side *s, const char *label, memfs_buf *out)
{
    value_of(s->f, ID_A, label, out);
    if (out->len > 0 && out->ptr[out->len - 1] == '\n')
        buf_truncate(out, out->len - 1);
    return out->ptr;
}

/* ---- status ---- */

typedef struct seen {
    size_t n;
    mirror_row row;
    char state[20], failure[400], note_text[400], advice[300];
} seen;

static bool keep_row(const mirror_row *row, void *ctx)
{
    seen *s = ctx;

    s->n++;
    s->row = *row;
    snprintf(s->state, sizeof(s->state), "%s", row->state);
    snprintf(s->failure, sizeof(s->failure), "%s", row->failure);
    snprintf(s->note_text, sizeof(s->note_text), "%s", row->note_text);
    snprintf(s->advice, sizeof(s->advice), "%s", row->advice);
    return true;
}

static seen status(side *s)
{
    seen found = { .n = 0 };

    OK(mirror_status(s->m, ID_A, true, keep_row, &found, &err));
    return found;
}

static void assert_state(side *s, const char *state, mirror_note note)
{
    seen found = status(s);

    if (found.n != 1 || strcmp(found.state, state) != 0 || found.row.note != note)
        fail_msg("state %s, note %s (%s), failure %s", found.state,
                 mirror_note_name(found.row.note), found.note_text, found.failure);
}

static upkeep_result resolve(side *s, int keep)
{
    upkeep_result r;

    OK(mirror_resolve(s->m, ID_A, "origin", keep, NULL, &r, &err));
    return r;
}

/* ---- both ways ---- */

static void test_F16_an_empty_remote_gets_main(void **state)
{
    duo *d = *state;
    memfs_oid tip;

    start(d, "", "", true);
    tip = edit(&d->a, "system/human.md", "one\n");
    assert_state(&d->a, "new", MIRROR_NOTE_NONE);
    must_sync(&d->a);
    assert_all_at(d, tip);
    assert_state(&d->a, "mirrored", MIRROR_NOTE_NONE);
    assert_true(status(&d->a).row.pushed_at_us > 0);
}

static void test_seen_at_is_when_the_remote_last_told_its_refs(void **state)
{
    duo *d = *state;
    int64_t seen_at_us, pushed_at_us;

    start(d, "", "", true);
    edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    seen_at_us = status(&d->a).row.seen_at_us;
    pushed_at_us = status(&d->a).row.pushed_at_us;
    assert_true(seen_at_us > 0 && pushed_at_us > 0);
    clock_sleep_ms(2);
    exchange_now(&d->a, WANT_LOOK); /* no news */
    assert_true(status(&d->a).row.seen_at_us > seen_at_us);
    assert_int_equal(status(&d->a).row.pushed_at_us, pushed_at_us);
    side_stop(&d->a);
    side_start(&d->a, true);
    assert_in_range(status(&d->a).row.seen_at_us, 1, seen_at_us); /* of the last news */
}

static void test_an_unknown_agent_is_met_on_the_remote(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    duo *d = *state;
    memfs_oid tip;

    start(d, "", "", true);
    tip = edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    assert_true(mirror_meet(d->b.m, AGENT_A, WAIT_MS));
    assert_true(same(tip_of(d->b.f, ID_A), tip));
    assert_string_equal(block(&d->b, "system/human", &text), "one");
    assert_false(mirror_meet(d->b.m, AGENT_B, WAIT_MS));
    assert_null(pair_find(d->b.m, ID_B, 0)); /* asking for ids fills no memory */
    assert_state(&d->b, "mirrored", MIRROR_NOTE_NONE);
}

static mirror_outcome sync_modestly(side *s, const char *agent_id)
{
    mirror_outcome o;

    mirror_sync_modestly(s->m, agent_id, clock_mono_ms() + WAIT_MS, &o);
    return o;
}

/* Made-up ids have used up what a host is asked for them: no door leads to it, known agents go on. */
static void test_too_many_unknown_ids_cost_a_host_nothing(void **state)
{
    const memfs_oid none = { { 0 } };
    duo *d = *state;
    mirror_outcome o;

    start(d, "", "", true);
    edit(&d->a, "system/human.md", "one\n");
    d->a.m->rooms[0].next_meet_ms = d->b.m->rooms[0].next_meet_ms = clock_mono_ms() + 3600000;
    assert_int_equal(sync_modestly(&d->a, AGENT_A).n_failed, 0);
    o = sync_modestly(&d->b, AGENT_A);
    assert_int_equal(o.n_failed, 1);
    assert_int_equal(o.n_missing, 0);
    assert_true(o.retry_after_s > 0);
    assert_false(mirror_meet(d->b.m, AGENT_A, WAIT_MS));
    mirror_hint(d->b.m, "origin", ID_A, &none);
    assert_null(pair_find(d->b.m, ID_A, 0));
    d->b.m->rooms[0].next_meet_ms = 0;
    assert_int_equal(sync_modestly(&d->b, AGENT_A).n_failed, 0);
    assert_true(same(tip_of(d->b.f, ID_A), tip_of(d->a.f, ID_A)));
}

static void test_an_id_that_was_not_there_is_looked_for_later(void **state)
{
    const memfs_oid none = { { 0 } };
    duo *d = *state;

    start(d, "", "", true);
    assert_int_equal(sync_modestly(&d->b, AGENT_A).n_failed, 0); /* it is nobody's */
    for (size_t i = 0; i < N_STRANGERS; i++)
        d->b.m->strangers[i].until_ms += 3600000;
    edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    d->b.m->rooms[0].next_meet_ms = 0;
    assert_int_equal(sync_modestly(&d->b, AGENT_A).n_failed, 0);
    assert_false(mirror_knows(d->b.m, ID_A));
    assert_false(mirror_meet(d->b.m, AGENT_A, WAIT_MS));
    assert_int_equal(d->b.m->rooms[0].next_meet_ms, 0); /* none of these was a look */
    mirror_hint(d->b.m, "origin", ID_A, &none); /* it is there now, the host says */
    assert_int_equal(sync_modestly(&d->b, AGENT_A).n_failed, 0);
    assert_true(same(tip_of(d->b.f, ID_A), tip_of(d->a.f, ID_A)));
}

/* A thousand polls stand in line for the host's rate: who clones now does not stand behind them. */
static void test_an_unknown_agent_is_met_while_polls_queue(void **state)
{
    duo *d = *state;

    start(d, "", "", true);
    edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    d->b.m->rooms[0].next_slot_ms = clock_mono_ms() + 3600000;
    assert_true(mirror_meet(d->b.m, AGENT_A, WAIT_MS));
    assert_true(d->b.m->rooms[0].next_slot_ms > clock_mono_ms() + 3500000);
}

static void test_edits_travel_both_ways(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    duo *d = *state;
    memfs_oid tip;

    start(d, "", "", true);
    edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    must_sync(&d->b);
    edit(&d->b, "system/persona.md", "two\n");
    must_sync(&d->b);
    must_sync(&d->a);
    assert_string_equal(block(&d->a, "system/persona", &text), "two");
    tip = far_commit(d, "system/human.md", "three\n");
    must_sync(&d->a);
    assert_string_equal(block(&d->a, "system/human", &text), "three");
    assert_all_at(d, tip);
}

static void test_a_push_needs_no_question_where_the_remote_is_known(void **state)
{
    duo *d = *state;
    exchange_result r;
    memfs_oid tip;

    start(d, "", "", true);
    edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    tip = edit(&d->a, "system/human.md", "two\n");
    r = exchange_now(&d->a, WANT_PUSH);
    assert_true(r.was_pushed);
    assert_all_at(d, tip);
    r = exchange_now(&d->a, WANT_PUSH);
    assert_false(r.was_pushed);
    assert_int_equal(r.answer, REMOTE_UNASKED); /* both are known to be in step */
}

static void test_F17_a_lost_race_is_merged_and_pushed(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    duo *d = *state;
    memfs_oid ours, theirs;
    exchange_result r;

    start(d, "", "", true);
    edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    theirs = far_commit(d, "system/persona.md", "far\n");
    ours = edit(&d->a, "system/human.md", "near\n");
    r = exchange_now(&d->a, WANT_PUSH); /* pushes unseen, and is refused */
    assert_int_equal(r.code, MEMFS_OK);
    assert_true(r.was_pushed && r.was_moved);
    assert_all_at(d, remote_tip(d));
    assert_true(is_ancestor(d->remote, ours, remote_tip(d)));
    assert_true(is_ancestor(d->remote, theirs, remote_tip(d)));
    assert_string_equal(block(&d->a, "system/persona", &text), "far");
    assert_string_equal(block(&d->a, "system/human", &text), "near");
}

static void test_F28_two_homes_that_merge_the_same_make_one_commit(void **state)
{
    duo *d = *state;
    memfs_oid tip;

    start(d, "", "\tdirection = pull\n", true);
    edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    must_sync(&d->b);
    edit(&d->b, "system/b.md", "of b\n"); /* stays there: it only pulls */
    edit(&d->a, "system/a.md", "of a\n");
    must_sync(&d->a);
    must_sync(&d->b);
    side_stop(&d->a);
    side_stop(&d->b);
    start(d, "", "", true); /* from now on b pushes, too */
    must_sync(&d->b);
    must_sync(&d->a);
    tip = remote_tip(d);
    assert_true(same(tip_of(d->a.f, ID_A), tip));
    assert_true(same(tip_of(d->b.f, ID_A), tip));
    for (int i = 0; i < 3; i++) { /* and quiet it is */
        must_sync(&d->a);
        must_sync(&d->b);
    }
    assert_true(same(remote_tip(d), tip));
}

static void test_D4_a_push_whose_record_was_lost_ends_in_the_same_state(void **state)
{
    mirror_record r;
    duo *d = *state;
    memfs_oid tip;

    start(d, "", "", true);
    edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    OK(record_load(d->a.m, AGENT_A, "origin", &r, &err));
    tip = edit(&d->a, "system/human.md", "two\n");
    must_sync(&d->a);
    OK(record_save(d->a.m, AGENT_A, "origin", NULL, &r, &err)); /* as if killed before it */
    must_sync(&d->a);
    assert_all_at(d, tip);
    assert_state(&d->a, "mirrored", MIRROR_NOTE_NONE);
}

/* ---- odd remotes ---- */

static void test_a_remote_that_lost_commits_gets_them_again(void **state)
{
    duo *d = *state;
    memfs_oid old, tip;

    start(d, "", "", true);
    old = edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    tip = edit(&d->a, "system/human.md", "two\n");
    must_sync(&d->a);
    git(d->remote, "update-ref", "refs/heads/main", "main~1");
    assert_true(same(remote_tip(d), old));
    must_sync(&d->a);
    assert_all_at(d, tip);
    assert_state(&d->a, "mirrored", MIRROR_NOTE_LOST);
    assert_int_equal(resolve(&d->a, INTAKE_MERGE).n_failed, 0);
    assert_state(&d->a, "mirrored", MIRROR_NOTE_NONE);
}

static void test_H5_a_rewritten_remote_is_joined_and_noted(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    duo *d = *state;
    memfs_oid ours, theirs;

    start(d, "", "", true);
    edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    ours = edit(&d->a, "system/persona.md", "kept\n");
    must_sync(&d->a);
    far_update(d);
    git(d->far, "reset", "-q", "--hard", "HEAD~1");
    put_file(d->far, "system/new.md", MEMFS_STR("rewritten\n"));
    theirs = commit_all(d->far, "another");
    git(d->far, "push", "-q", "--force", "origin", "HEAD:refs/heads/main");
    must_sync(&d->a);
    assert_all_at(d, remote_tip(d));
    assert_true(is_ancestor(d->remote, ours, remote_tip(d)));
    assert_true(is_ancestor(d->remote, theirs, remote_tip(d)));
    assert_string_equal(block(&d->a, "system/persona", &text), "kept");
    assert_string_equal(block(&d->a, "system/new", &text), "rewritten");
    assert_state(&d->a, "mirrored", MIRROR_NOTE_REWRITTEN);
}

static void put_unrelated(duo *d)
{
    git(d->a.f->root, "init", "-q", "-b", "main", d->far);
    put_file(d->far, "system/theirs.md", MEMFS_STR("another root\n"));
    commit_all(d->far, "Initial commit");
    git(d->far, "push", "-q", "--force", d->remote, "HEAD:refs/heads/main");
}

static void test_H5_unrelated_histories_are_joined_with_both_roots(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    duo *d = *state;
    memfs_oid ours;

    start(d, "", "", true);
    put_unrelated(d);
    ours = edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    assert_all_at(d, remote_tip(d));
    assert_true(is_ancestor(d->remote, ours, remote_tip(d)));
    assert_true(is_ancestor(d->remote, git_id(d->far, "HEAD"), remote_tip(d)));
    assert_string_equal(block(&d->a, "system/theirs", &text), "another root");
    assert_state(&d->a, "mirrored", MIRROR_NOTE_UNRELATED);
}

static void test_F16_a_deleted_main_is_pushed_again(void **state)
{
    duo *d = *state;
    memfs_oid tip;

    start(d, "", "", true);
    tip = edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    git(d->remote, "update-ref", "-d", "refs/heads/main");
    must_sync(&d->a);
    assert_all_at(d, tip);
    assert_state(&d->a, "mirrored", MIRROR_NOTE_DELETED);
}

static void test_another_default_branch_is_taken_in_and_main_is_pushed(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    duo *d = *state;

    start(d, "", "", true);
    put_unrelated(d);
    git(d->remote, "branch", "-m", "main", "master");
    git(d->remote, "symbolic-ref", "HEAD", "refs/heads/master");
    assert_false(remote_has_main(d));
    edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    assert_all_at(d, remote_tip(d));
    assert_string_equal(block(&d->a, "system/theirs", &text), "another root");
    assert_state(&d->a, "mirrored", MIRROR_NOTE_BRANCH);
    assert_non_null(strstr(status(&d->a).note_text, "master"));
    assert_true(same(git_id(d->remote, "refs/heads/master"), git_id(d->far, "HEAD")));
}

/* a link in the remote's tree, which no push may bring */
static void far_symlink(duo *d)
{
    _cleanup_(mem_freep) char *path = NULL;

    far_update(d);
    path = mem_printf("%s/system/evil.md", d->far);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    commit_all(d->far, "evil");
    git(d->far, "push", "-q", "origin", "HEAD:refs/heads/main");
}

static void test_T23_a_refused_tip_is_noted_and_stops_nothing_here(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    mirror_outcome o;
    exchange_result r;
    memfs_oid before, there;
    duo *d = *state;

    start(d, "", "", true);
    edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    far_symlink(d);
    there = remote_tip(d);
    before = edit(&d->a, "system/persona.md", "local work\n");
    o = sync_now(&d->a);
    assert_int_equal(o.n_failed, 1);
    assert_non_null(strstr(o.failure, "system/evil.md"));
    assert_true(same(tip_of(d->a.f, ID_A), before));
    assert_true(same(remote_tip(d), there));
    assert_state(&d->a, "held", MIRROR_NOTE_REFUSED);
    r = exchange_now(&d->a, WANT_LOOK); /* the same tip is not fetched again */
    assert_int_equal(r.code, MEMFS_EDENIED);
    r = exchange_now(&d->a, WANT_LOOK | WANT_PUSH | WANT_NOW);
    assert_int_equal(r.code, MEMFS_EDENIED); /* nor does it come to be known by that */

    drop_file(d->far, "system/evil.md");
    commit_all(d->far, "mended");
    git(d->far, "push", "-q", "origin", "HEAD:refs/heads/main");
    must_sync(&d->a);
    assert_all_at(d, remote_tip(d));
    assert_string_equal(block(&d->a, "system/persona", &text), "local work");
    assert_state(&d->a, "mirrored", MIRROR_NOTE_NONE);
}

/* A host may send as much as it likes: what was too much once is not fetched again and again. */
static void test_T23_what_is_too_large_is_fetched_once(void **state)
{
    duo *d = *state;
    memfs_buf big = MEMFS_BUF_INIT(1u << 20);
    uint8_t noise[64 << 10];
    memfs_oid tip;

    close_home(d->a.f);
    d->a.f->options.max_pack_bytes = 8 << 10;
    open_home(d->a.f);
    start(d, "", "", true);
    edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    hash_random(noise, sizeof(noise));
    for (size_t i = 0; i < sizeof(noise); i++)
        buf_printf(&big, "%02x", noise[i]);
    tip = far_commit(d, "system/big.md", big.ptr);
    buf_dispose(&big);
    assert_int_equal(exchange_now(&d->a, WANT_LOOK).code, MEMFS_EDENIED);
    assert_state(&d->a, "held", MIRROR_NOTE_REFUSED);
    assert_true(same(status(&d->a).row.remote_tip, tip)); /* so the next look knows it */
    assert_non_null(strstr(status(&d->a).note_text, "more than 32768 bytes"));
}

static void test_a_refused_tip_is_joined_with_our_files_by_an_operator(void **state)
{
    memfs_oid ours, theirs;
    duo *d = *state;

    start(d, "", "", true);
    edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    far_symlink(d);
    theirs = remote_tip(d);
    ours = edit(&d->a, "system/persona.md", "local work\n");
    assert_int_equal(sync_now(&d->a).n_failed, 1);
    assert_int_equal(resolve(&d->a, INTAKE_MERGE).n_failed, 1);
    assert_state(&d->a, "held", MIRROR_NOTE_REFUSED);
    assert_int_equal(resolve(&d->a, INTAKE_OURS).n_failed, 0);
    assert_all_at(d, remote_tip(d));
    assert_true(is_ancestor(d->remote, theirs, remote_tip(d)));
    assert_true(same(git_id(d->remote, "main^{tree}"), git_id(d->a.f->work, "HEAD^{tree}")));
    assert_true(is_ancestor(d->remote, ours, remote_tip(d)));
    assert_state(&d->a, "mirrored", MIRROR_NOTE_NONE);
}

static void put_hook(duo *d, const char *text)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/hooks/pre-receive", d->remote);

    OK(fs_write_atomic(path, str_of(text), 0755, &err));
}

static void drop_hook(duo *d)
{
    drop_file(d->remote, "hooks/pre-receive");
}

static void test_F17_a_hosts_refusal_is_kept_with_its_words_escaped(void **state)
{
    memfs_oid there;
    duo *d = *state;
    seen s;

    start(d, "", "", true);
    edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    there = remote_tip(d);
    put_hook(d, "#!/bin/sh\nprintf 'main is \\033[31mprotected\\033[0m here\\n' >&2\nexit 1\n");
    edit(&d->a, "system/human.md", "two\n");
    assert_int_equal(sync_now(&d->a).n_failed, 1);
    s = status(&d->a);
    assert_string_equal(s.state, "held");
    assert_int_equal(s.row.note, MIRROR_NOTE_REJECTED);
    assert_non_null(strstr(s.note_text, "protected"));
    assert_null(strchr(s.note_text, 033));
    assert_true(s.row.next_try_us - clock_wall_us() > 600 * 1000000ll); /* slowly */
    assert_true(s.row.oldest_unmirrored_us > 0);
    assert_int_equal(s.row.n_ahead, 1);
    assert_true(same(remote_tip(d), there));
    drop_hook(d);
    must_sync(&d->a);
    assert_all_at(d, remote_tip(d));
    assert_state(&d->a, "mirrored", MIRROR_NOTE_NONE);
}

static void test_F16_a_missing_repository_is_a_state_and_comes_back(void **state)
{
    memfs_oid tip;
    duo *d = *state;
    seen s;

    OK(fs_remove_tree(d->remote, &err));
    start(d, "\tcreate = false\n", "", true);
    tip = edit(&d->a, "system/human.md", "one\n");
    assert_int_equal(sync_now(&d->a).n_failed, 1);
    s = status(&d->a);
    assert_string_equal(s.state, "missing");
    assert_true(s.advice[0] != '\0' && s.row.n_failures == 1);
    assert_true(same(tip_of(d->a.f, ID_A), tip)); /* never "empty, so delete" */
    make_remote(d);
    must_sync(&d->a);
    assert_all_at(d, tip);
    assert_state(&d->a, "mirrored", MIRROR_NOTE_NONE);
}

static size_t count_names(const char *folder)
{
    DIR *dir = opendir(folder);
    size_t n = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n - 2;
}

static void test_F16_a_missing_repository_at_a_path_is_made(void **state)
{
    _cleanup_(buf_dispose) memfs_buf head = MEMFS_BUF_INIT(4096);
    _cleanup_(mem_freep) char *folder = NULL, *head_path = NULL;
    struct stat st;
    memfs_oid tip;
    duo *d = *state;

    folder = mem_printf("%s/remote", d->a.f->root);
    head_path = mem_printf("%s/HEAD", d->remote);
    OK(fs_remove_tree(d->remote, &err));
    start(d, "", "\tdirection = pull\n", true);
    assert_int_equal(sync_now(&d->b).n_failed, 1); /* it has nothing to put there */
    assert_int_equal(count_names(folder), 0);
    tip = edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    assert_all_at(d, tip);
    assert_state(&d->a, "mirrored", MIRROR_NOTE_NONE);
    assert_int_equal(count_names(folder), 1);
    assert_int_equal(stat(d->remote, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    OK(fs_read(head_path, &head, &err));
    assert_string_equal(head.ptr, "ref: refs/heads/main\n");
    must_sync(&d->b);
    assert_true(same(tip_of(d->b.f, ID_A), tip));
}

static void assert_missing(side *s, const char *words)
{
    exchange_result r = exchange_now(s, WANT_LOOK | WANT_PUSH);
    seen row = status(s);

    assert_int_equal(r.code, MEMFS_EUNAVAIL);
    assert_string_equal(row.state, "missing");
    if (strstr(row.failure, words) == NULL)
        fail_msg("'%s' is not in '%s'", words, row.failure);
}

static void test_F16_nothing_is_made_where_a_disk_is_not_mounted(void **state)
{
    _cleanup_(mem_freep) char *disk = NULL, *away = NULL;
    memfs_oid tip;
    duo *d = *state;

    disk = mem_printf("%s/remote", d->a.f->root);
    away = mem_printf("%s/away", d->a.f->root);
    start(d, "", "", true);
    assert_int_equal(rename(disk, away), 0);
    edit(&d->a, "system/human.md", "one\n");
    assert_missing(&d->a, "is its disk mounted?"); /* never seen, and no folder to make it in */
    assert_false(fs_exists(disk));
    assert_int_equal(rename(away, disk), 0);
    must_sync(&d->a);
    assert_int_equal(rename(disk, away), 0);
    OK(fs_mkdirs(disk, &err)); /* where it is mounted to */
    tip = edit(&d->a, "system/human.md", "two\n");
    assert_missing(&d->a, "is its disk mounted?"); /* it was there */
    assert_int_equal(count_names(disk), 0);
    assert_int_equal(rmdir(disk), 0);
    assert_int_equal(rename(away, disk), 0);
    assert_int_equal(exchange_now(&d->a, WANT_LOOK).code, MEMFS_OK);
    assert_all_at(d, tip);
    assert_state(&d->a, "mirrored", MIRROR_NOTE_NONE);
}

static void test_F16_a_repository_that_is_gone_is_made_anew_on_a_persons_word(void **state)
{
    memfs_oid tip;
    duo *d = *state;

    start(d, "", "", true);
    edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    OK(fs_remove_tree(d->remote, &err));
    tip = edit(&d->a, "system/human.md", "two\n");
    assert_missing(&d->a, "retry");
    must_sync(&d->a); /* `memfs mirror sync`, or retry */
    assert_all_at(d, tip);
    assert_state(&d->a, "mirrored", MIRROR_NOTE_DELETED);
}

/* ---- what the log and the status say of a trouble ---- */

static size_t count_events(side *s, const char *part)
{
    size_t n = 0;

    pthread_mutex_lock(&s->mutex);
    for (const char *at = s->events.ptr; (at = strstr(at, part)) != NULL; at += strlen(part))
        n++;
    pthread_mutex_unlock(&s->mutex);
    return n;
}

/* As if that much time had passed since something was told of the pair. */
static void let_pass(side *s, uint32_t seconds)
{
    mirror *m = s->m;

    pthread_mutex_lock(&m->mutex);
    pair_find(m, ID_A, 0)->told_s -= seconds;
    pthread_mutex_unlock(&m->mutex);
}

static void test_L5_a_trouble_is_in_the_log_once_a_minute_and_in_the_status_all_the_time(
    void **state)
{
    duo *d = *state;
    int64_t now_us;
    seen s;

    start(d, "\tcreate = false\n", "", true);
    OK(fs_remove_tree(d->remote, &err));
    edit(&d->a, "system/human.md", "one\n");
    for (int i = 0; i < 5; i++)
        exchange_now(&d->a, WANT_LOOK);
    assert_int_equal(count_events(&d->a, "mirror_failed " AGENT_A " origin repository not found"),
                     1);
    assert_int_equal(count_events(&d->a, "; next try in "), 1);
    now_us = clock_wall_us();
    s = status(&d->a);
    assert_string_equal(s.state, "missing");
    assert_non_null(strstr(s.failure, "repository not found"));
    assert_true(s.advice[0] != '\0' && s.row.n_failures == 5 && s.row.next_try_us > now_us);
    OK(fs_write_atomic(d->remote, MEMFS_STR("no folder"), 0600, &err));
    let_pass(&d->a, 61);
    exchange_now(&d->a, WANT_LOOK);
    exchange_now(&d->a, WANT_LOOK);
    assert_int_equal(count_events(&d->a, "mirror_failed"), 2);
    assert_int_equal(unlink(d->remote), 0);
    make_remote(d);
    exchange_now(&d->a, WANT_LOOK);
    assert_int_equal(count_events(&d->a, "mirror_recovered"), 1);
    assert_int_equal(status(&d->a).row.n_failures, 0);
    OK(fs_remove_tree(d->remote, &err)); /* it comes and goes */
    exchange_now(&d->a, WANT_LOOK);
    assert_int_equal(count_events(&d->a, "mirror_failed"), 2);
}

static void test_L5_troubles_that_take_turns_are_each_told_once_a_minute(void **state)
{
    duo *d = *state;

    start(d, "\tcreate = false\n", "", true);
    edit(&d->a, "system/human.md", "one\n");
    for (int i = 0; i < 4; i++) {
        put_hook(d, "#!/bin/sh\nexit 1\n");
        exchange_now(&d->a, WANT_LOOK | WANT_PUSH);
        OK(fs_remove_tree(d->remote, &err));
        exchange_now(&d->a, WANT_LOOK | WANT_PUSH);
        make_remote(d);
    }
    assert_int_equal(count_events(&d->a, "mirror_failed"), 2);
    assert_int_equal(count_events(&d->a, "repository not found"), 1);
    let_pass(&d->a, 61);
    OK(fs_remove_tree(d->remote, &err));
    exchange_now(&d->a, WANT_LOOK | WANT_PUSH);
    assert_int_equal(count_events(&d->a, "repository not found"), 2);
}

/* ---- directions ---- */

static void test_a_push_only_remote_is_never_merged(void **state)
{
    memfs_oid ours, theirs;
    duo *d = *state;

    start(d, "\tdirection = push\n", "", true);
    edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    theirs = far_commit(d, "system/far.md", "far\n");
    ours = edit(&d->a, "system/human.md", "two\n");
    assert_int_equal(sync_now(&d->a).n_failed, 1);
    assert_state(&d->a, "held", MIRROR_NOTE_DIVERGED);
    assert_true(same(tip_of(d->a.f, ID_A), ours));
    assert_true(same(remote_tip(d), theirs));
    assert_false(mirror_meet(d->a.m, AGENT_B, WAIT_MS));
}

static void test_a_pull_only_remote_is_never_pushed_to(void **state)
{
    memfs_oid there, ours;
    duo *d = *state;

    start(d, "", "\tdirection = pull\n", true);
    edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    must_sync(&d->b);
    there = remote_tip(d);
    ours = edit(&d->b, "system/human.md", "two\n");
    must_sync(&d->b);
    assert_true(same(remote_tip(d), there));
    assert_true(same(tip_of(d->b.f, ID_A), ours));
    assert_state(&d->b, "mirrored", MIRROR_NOTE_NONE);
    far_commit(d, "system/far.md", "far\n");
    there = remote_tip(d);
    must_sync(&d->b);
    assert_true(same(remote_tip(d), there));
    assert_true(status(&d->b).row.n_ahead >= 2);
    assert_int_equal(status(&d->b).row.oldest_unmirrored_us, 0);
}

static void test_an_operator_takes_their_files(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    duo *d = *state;

    start(d, "", "", true);
    edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    far_commit(d, "system/human.md", "theirs\n");
    edit(&d->a, "system/mine.md", "mine\n");
    put_hook(d, "#!/bin/sh\nexit 1\n"); /* any note that stands */
    assert_int_equal(sync_now(&d->a).n_failed, 1);
    drop_hook(d);
    far_commit(d, "system/human.md", "theirs again\n");
    assert_int_equal(resolve(&d->a, INTAKE_THEIRS).n_failed, 0);
    assert_string_equal(block(&d->a, "system/human", &text), "theirs again");
    assert_string_equal(block(&d->a, "system/mine", &text), "<none>");
    assert_all_at(d, remote_tip(d));
    assert_state(&d->a, "mirrored", MIRROR_NOTE_NONE);
}

/* ---- what is pure ---- */

static void test_F18_waits_grow_to_a_quarter_of_an_hour_by_chance(void **state)
{
    int64_t ms, most = 0;

    (void)state;
    for (int n = 0; n < 64; n++) {
        for (int i = 0; i < 50; i++) {
            ms = backoff_ms(REMOTE_FAILING, n, 0);
            assert_true(ms >= 1000 && ms <= 900000);
            assert_true(n > 9 || ms <= 1000 << n);
            most = ms > most ? ms : most;
        }
    }
    assert_true(most > 600000);
    assert_int_equal(backoff_ms(REMOTE_TOO_MANY, 0, 120), 120000);
    assert_int_equal(backoff_ms(REMOTE_TOO_MANY, 0, 86400), 3600000); /* an hour at most */
    assert_true(backoff_ms(REMOTE_REFUSED, 40, 0) <= 5000);
}

static void test_every_note_has_a_name_and_advice(void **state)
{
    (void)state;
    for (int n = MIRROR_NOTE_NONE + 1; n < MIRROR_N_NOTES; n++) {
        assert_true(mirror_note_name((mirror_note)n)[0] != '\0');
        assert_true(mirror_note_advice((mirror_note)n)[0] != '\0');
        assert_int_equal(mirror_note_parse(str_of(mirror_note_name((mirror_note)n))), n);
    }
    assert_int_equal(mirror_note_parse(MEMFS_STR("nonsense")), MIRROR_NOTE_NONE);
}

static void test_a_pair_that_rests_is_small(void **state)
{
    (void)state;
    assert_true(sizeof(struct pair) + sizeof(AGENT_A) <= 200);
}

static void add_pairs(side *s, int n)
{
    char id[64];

    for (int i = 0; i < n; i++) {
        snprintf(id, sizeof(id), "agent-%08d-1111-4111-8111-111111111111", i);
        pair_need(s->m, str_of(id), 0);
    }
}

static void test_many_quiet_agents_are_asked_more_rarely(void **state)
{
    duo *d = *state;
    mirror *m;
    pair *p;

    start(d, "", "", true);
    m = d->a.m;
    pthread_mutex_lock(&m->mutex);
    add_pairs(&d->a, 100);
    p = pairs_first_due(m);
    p->changed_s -= 7 * 86400;
    for (int i = 0; i < 100; i++) /* few: everyone every minute */
        assert_true(schedule_interval_ms(m, p) >= 54000 && schedule_interval_ms(m, p) <= 66000);
    add_pairs(&d->a, 10000);
    for (int i = 0; i < 100; i++) { /* many: a quiet one at most every second round of 2,000 s */
        assert_true(schedule_interval_ms(m, p) >= 3600000);
        assert_true(schedule_interval_ms(m, p) <= 4400000);
    }
    p->changed_s = (uint32_t)(clock_mono_ms() / 1000);
    assert_true(schedule_interval_ms(m, p) <= 66000); /* one that lives: as ever */
    assert_int_equal(m->n_pairs, 10000);
    pthread_mutex_unlock(&m->mutex);
}

static void test_pairs_come_out_of_the_heap_in_the_order_of_their_times(void **state)
{
    int64_t last_ms = 0;
    duo *d = *state;
    mirror *m;
    pair *p;

    start(d, "", "", true);
    m = d->a.m;
    pthread_mutex_lock(&m->mutex);
    add_pairs(&d->a, 3000);
    for (int i = 0; i < 1000; i++) { /* moved about, parked and brought back */
        p = m->heap[(size_t)mirror_chance((int64_t)m->n_heap)];
        if (i % 2 == 0)
            pair_park(m, p);
        pair_to_heap(m, p, clock_mono_ms() + mirror_chance(100000));
    }
    for (int i = 0; (p = pairs_first_due(m)) != NULL; i++) {
        assert_true(p->due_ms >= last_ms);
        last_ms = p->due_ms;
        pair_to_queue(m, p, i % 2 == 0);
    }
    assert_non_null(m->lanes[0].prompt.first);
    assert_non_null(m->lanes[0].polls.first);
    pthread_mutex_unlock(&m->mutex);
}

/* ---- with threads ---- */

static bool is_remote_at(duo *d, memfs_oid tip)
{
    return remote_has_main(d) && same(remote_tip(d), tip);
}

#define WAIT_FOR(condition)                                                                        \
    do {                                                                                           \
        int64_t until_ = clock_mono_ms() + WAIT_MS;                                                \
        while (!(condition)) {                                                                     \
            if (clock_mono_ms() > until_)                                                          \
                fail_msg("never: %s", #condition);                                                 \
            clock_sleep_ms(5);                                                                     \
        }                                                                                          \
    } while (0)

static bool is_state(side *s, const char *state)
{
    return strcmp(status(s).state, state) == 0;
}

static void test_a_push_appears_on_the_remote_by_itself(void **state)
{
    duo *d = *state;
    memfs_oid tip;

    start(d, "", "", false);
    tip = edit(&d->a, "system/human.md", "one\n");
    WAIT_FOR(is_remote_at(d, tip));
    WAIT_FOR(is_state(&d->a, "mirrored"));
    tip = edit(&d->a, "system/human.md", "two\n");
    WAIT_FOR(is_remote_at(d, tip));
}

static void test_F26_polling_finds_what_no_webhook_told(void **state)
{
    duo *d = *state;
    memfs_oid tip;

    start(d, "\tpoll = 1\n", "\tpoll = 1\n", false);
    edit(&d->a, "system/human.md", "one\n");
    WAIT_FOR(is_state(&d->a, "mirrored"));
    tip = far_commit(d, "system/human.md", "far\n");
    WAIT_FOR(same(tip_of(d->a.f, ID_A), tip));
}

static void on_finding(const char *id, const char *kind, const char *what, const char *text,
                       void *ctx)
{
    (void)id;
    buf_printf(ctx, "%s %s %s\n", kind, what, text);
}

static void test_a_retry_says_what_it_did(void **state)
{
    _cleanup_(buf_dispose) memfs_buf said = MEMFS_BUF_INIT(4096);
    upkeep_watcher w = { .finding = on_finding, .ctx = &said };
    upkeep_result r;
    duo *d = *state;
    memfs_oid tip;

    start(d, "\tpoll = 3600\n\tcreate = false\n", "", false);
    edit(&d->a, "system/human.md", "one\n");
    WAIT_FOR(is_state(&d->a, "mirrored"));
    tip = far_commit(d, "system/human.md", "far\n");
    OK(mirror_retry(d->a.m, MEMFS_STR(""), "", &w, &r, &err));
    assert_true(same(tip_of(d->a.f, ID_A), tip));
    assert_string_equal(said.ptr, "mirrored origin taken in\n");
    assert_int_equal(r.n_agents, 1);
    buf_clear(&said);
    OK(fs_remove_tree(d->remote, &err));
    OK(mirror_retry(d->a.m, ID_A, "origin", &w, &r, &err));
    assert_int_equal(r.n_failed, 1);
    assert_non_null(strstr(said.ptr, "failed origin remote 'origin': repository not found"));
    FAILS(MEMFS_ENOTFOUND, mirror_retry(d->a.m, ID_A, "nobody", &w, &r, &err));
    FAILS(MEMFS_ENOTFOUND, mirror_retry(d->a.m, ID_B, "origin", &w, &r, &err));
}

static void test_F19_what_a_start_finds_undone_is_done(void **state)
{
    duo *d = *state;
    memfs_oid tip = edit(&d->a, "system/human.md", "while nobody mirrors\n");

    start(d, "", "", false);
    WAIT_FOR(is_remote_at(d, tip));
    side_stop(&d->a);
    tip = edit(&d->a, "system/human.md", "again\n");
    reopen_home(d->a.f);
    side_start(&d->a, false);
    WAIT_FOR(is_remote_at(d, tip));
}

static void test_F19_failures_and_the_next_try_survive_a_restart(void **state)
{
    duo *d = *state;
    seen before, after;

    OK(fs_remove_tree(d->remote, &err));
    start(d, "\tcreate = false\n", "", true);
    edit(&d->a, "system/human.md", "one\n");
    for (int i = 0; i < 3; i++)
        assert_int_equal(sync_now(&d->a).n_failed, 1);
    before = status(&d->a);
    side_stop(&d->a);
    reopen_home(d->a.f);
    side_start(&d->a, true);
    after = status(&d->a);
    assert_string_equal(after.state, "missing");
    assert_int_equal(after.row.n_failures, 3);
    assert_int_equal(before.row.n_failures, 3);
    assert_true(after.row.oldest_unmirrored_us > 0);
}

static uint32_t n_exchanges(side *s)
{
    uint32_t n;
    pair *p;

    pthread_mutex_lock(&s->m->mutex);
    p = pair_find(s->m, ID_A, 0);
    n = p != NULL ? p->n_ended : 0;
    pthread_mutex_unlock(&s->m->mutex);
    return n;
}

static bool is_compared(side *s)
{
    mirror *m = s->m;
    bool is_done;

    pthread_mutex_lock(&m->mutex);
    is_done = m->is_compared;
    pthread_mutex_unlock(&m->mutex);
    return is_done;
}

static void test_F28_a_webhook_of_our_own_push_does_nothing(void **state)
{
    duo *d = *state;
    uint32_t before;
    memfs_oid tip;

    start(d, "\tpoll = 3600\n", "", false);
    tip = edit(&d->a, "system/human.md", "one\n");
    WAIT_FOR(is_state(&d->a, "mirrored"));
    before = n_exchanges(&d->a);
    for (int i = 0; i < 1000; i++)
        mirror_hint(d->a.m, "origin", ID_A, &tip);
    assert_int_equal(n_exchanges(&d->a), before);
    pthread_mutex_lock(&d->a.m->mutex);
    assert_int_equal(pair_find(d->a.m, ID_A, 0)->wants, 0);
    pthread_mutex_unlock(&d->a.m->mutex);
}

static void test_T22_F26_ten_thousand_webhooks_are_a_handful_of_looks(void **state)
{
    duo *d = *state;
    uint32_t before;
    memfs_oid tip;

    start(d, "\tpoll = 3600\n", "", false);
    edit(&d->a, "system/human.md", "one\n");
    WAIT_FOR(is_state(&d->a, "mirrored"));
    tip = far_commit(d, "system/human.md", "far\n");
    before = n_exchanges(&d->a);
    for (int i = 0; i < 10000; i++)
        mirror_hint(d->a.m, "origin", ID_A, &tip);
    WAIT_FOR(same(tip_of(d->a.f, ID_A), tip));
    WAIT_FOR(is_state(&d->a, "mirrored"));
    for (int i = 0; i < 10000; i++)
        mirror_hint(d->a.m, "origin", ID_A, &tip);
    mirror_hint(d->a.m, "nobody", ID_A, &tip);
    mirror_hint(d->a.m, "origin", MEMFS_STR("../../x"), &tip);
    assert_true(n_exchanges(&d->a) - before <= 3);
}

static void test_F19_L3_a_host_that_is_away_is_asked_by_one_for_all(void **state)
{
    duo *d = *state;
    push_verdict v;
    memfs_oid tip;
    seen s = { .n = 0 };

    configure(&d->a, "[mirror \"origin\"]\n\turl = http://127.0.0.1:1/{agentId}.git\n");
    side_start(&d->a, false);
    tip = edit(&d->a, "system/human.md", "one\n");
    WAIT_FOR(is_state(&d->a, "failing"));
    v = try_push(d->a.f, ID_B, STORE_GENESIS, tip);
    assert_true(v.moved); /* local work goes on */
    OK(mirror_status(d->a.m, ID_B, false, keep_row, &s, &err));
    assert_string_equal(s.state, "failing"); /* without having asked */
    s = status(&d->a);
    assert_non_null(strstr(s.failure, "connection refused"));
    assert_true(s.row.next_try_us > 0);
    assert_true(has_event(&d->a, "mirror_failed " AGENT_A " origin"));
    assert_true(has_event(&d->a, "next try in"));
    assert_false(has_event(&d->a, "mirror_failed " AGENT_B));
    assert_false(mirror_meet(d->a.m, "agent-33333333-3333-4333-8333-333333333333", WAIT_MS));
}

static void test_L3_a_stop_ends_children(void **state)
{
    duo *d = *state;
    char *marker = mem_printf("%s/began", d->remote);
    char *hook = mem_printf("#!/bin/sh\n: >'%s'\nsleep 100000\n", marker);

    put_hook(d, hook);
    start(d, "", "", false);
    edit(&d->a, "system/human.md", "one\n");
    WAIT_FOR(fs_exists(marker));
    side_stop(&d->a); /* comes back long before the hook would */
    assert_false(remote_has_main(d));
    drop_hook(d);
    side_start(&d->a, false);
    WAIT_FOR(is_state(&d->a, "mirrored"));
    free(marker);
    free(hook);
}

#define AGENT_C "agent-33333333-3333-4333-8333-333333333333"

static void make_bare(const char *root, const char *folder, const char *id, const char *hook)
{
    _cleanup_(mem_freep) char *dir = mem_printf("%s/%s/%s.git", root, folder, id);
    _cleanup_(mem_freep) char *path = mem_printf("%s/hooks/pre-receive", dir);

    git(root, "init", "-q", "--bare", "-b", "main", dir);
    if (hook != NULL)
        OK(fs_write_atomic(path, str_of(hook), 0755, &err));
}

static bool has_main(const char *root, const char *folder, const char *id)
{
    _cleanup_(mem_freep) char *path =
        mem_printf("%s/%s/%s.git/refs/heads/main", root, folder, id);

    return fs_exists(path);
}

static void test_L3_a_host_that_hangs_takes_half_of_the_workers(void **state)
{
    static const char *const ids[] = { AGENT_A, AGENT_B, AGENT_C };
    duo *d = *state;
    const char *root = d->a.f->root;
    _cleanup_(mem_freep) char *text =
        mem_printf("[mirror \"slow\"]\n\turl = %s/slow/{agentId}.git\n"
                   "[mirror \"quick\"]\n\turl = %s/quick/{agentId}.git\n", root, root);
    memfs_oid first;
    size_t n;

    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        make_bare(root, "slow", ids[i], "#!/bin/sh\nsleep 100000\n");
        make_bare(root, "quick", ids[i], NULL);
    }
    configure(&d->a, text);
    side_start(&d->a, false);
    first = edit(&d->a, "system/human.md", "one\n");
    for (size_t i = 1; i < ARRAY_LEN(ids); i++)
        assert_true(try_push(d->a.f, str_of(ids[i]), STORE_GENESIS, first).moved);
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        WAIT_FOR(has_main(root, "quick", ids[i]));
        assert_false(has_main(root, "slow", ids[i]));
    }
    pthread_mutex_lock(&d->a.m->mutex);
    n = d->a.m->rooms[0].n_running;
    pthread_mutex_unlock(&d->a.m->mutex);
    assert_true(n <= 2);
}

/* However many hang, and whether that is known already or not. */
static void hang_beside(duo *d, size_t n_slow, bool is_known)
{
    static const char *const ids[] = { AGENT_A, AGENT_B, AGENT_C };
    static const char *const folders[] = { "slow0", "slow1", "slow2", "quick" };
    const char *root = d->a.f->root;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    memfs_oid first;

    for (size_t i = 3 - n_slow; i < ARRAY_LEN(folders); i++) {
        buf_printf(&text, "[mirror \"%s\"]\n\turl = %s/%s/{agentId}.git\n", folders[i], root,
                   folders[i]);
        for (size_t j = 0; j < ARRAY_LEN(ids); j++)
            make_bare(root, folders[i], ids[j], i < 3 ? "#!/bin/sh\nsleep 100000\n" : NULL);
    }
    configure(&d->a, text.ptr);
    side_start(&d->a, false);
    pthread_mutex_lock(&d->a.m->mutex);
    for (size_t i = 0; i < n_slow; i++)
        d->a.m->rooms[i].is_silent = is_known;
    pthread_mutex_unlock(&d->a.m->mutex);
    first = edit(&d->a, "system/human.md", "one\n");
    for (size_t i = 1; i < ARRAY_LEN(ids); i++)
        assert_true(try_push(d->a.f, str_of(ids[i]), STORE_GENESIS, first).moved);
    for (size_t i = 0; i < ARRAY_LEN(ids); i++)
        WAIT_FOR(has_main(root, "quick", ids[i]));
}

static void test_L3_two_hosts_that_hang_leave_a_worker_to_a_third(void **state)
{
    hang_beside(*state, 2, false);
}

static void test_L3_hosts_that_are_known_to_hang_leave_a_worker_to_others(void **state)
{
    hang_beside(*state, 3, true);
}

static void test_a_reload_follows_the_file(void **state)
{
    duo *d = *state;
    _cleanup_(mem_freep) char *text = mem_printf("[mirror \"other\"]\n\turl = %s/other/{agentId}.git\n",
                                                 d->a.f->root);
    _cleanup_(mem_freep) char *other = mem_printf("%s/other/" AGENT_A ".git", d->a.f->root);
    memfs_oid tip;

    start(d, "", "", false);
    tip = edit(&d->a, "system/human.md", "one\n");
    WAIT_FOR(is_remote_at(d, tip));
    git(d->a.f->root, "init", "-q", "--bare", "-b", "main", other);
    configure(&d->a, text);
    mirror_reload(d->a.m, load_remotes(&d->a));
    WAIT_FOR(is_state(&d->a, "mirrored")); /* by the comparison that a reload brings */
    assert_true(same(git_id(other, "main"), tip));
    assert_string_equal(status(&d->a).row.remote != NULL ? "other" : "", "other");
    edit(&d->a, "system/human.md", "two\n");
    WAIT_FOR(is_state(&d->a, "mirrored"));
    assert_true(is_remote_at(d, tip)); /* the old one is left alone */
    mirror_reload(d->a.m, mem_alloc(sizeof(remotes)));
    assert_false(mirror_has_remotes(d->a.m));
    assert_int_equal(status(&d->a).n, 0);
}

static void test_a_file_that_names_another_address_makes_what_is_known_void(void **state)
{
    duo *d = *state;
    _cleanup_(mem_freep) char *text = mem_printf("[mirror \"origin\"]\n\turl = %s/other/{agentId}.git\n",
                                                 d->a.f->root);
    _cleanup_(mem_freep) char *other = mem_printf("%s/other/" AGENT_A ".git", d->a.f->root);
    memfs_oid tip;

    start(d, "", "", false);
    tip = edit(&d->a, "system/human.md", "one\n");
    WAIT_FOR(is_remote_at(d, tip));
    side_stop(&d->a);
    git(d->a.f->root, "init", "-q", "--bare", "-b", "main", other);
    configure(&d->a, text);
    side_start(&d->a, false);
    WAIT_FOR(is_state(&d->a, "mirrored"));
    assert_true(same(git_id(other, "main"), tip));
    assert_state(&d->a, "mirrored", MIRROR_NOTE_NONE); /* nothing was lost there */
}

static void test_a_hold_keeps_everybody_else_off(void **state)
{
    duo *d = *state;
    exchange_result r;
    pair_hold hold;
    memfs_oid tip;

    start(d, "", "", false);
    edit(&d->a, "system/human.md", "one\n");
    WAIT_FOR(is_state(&d->a, "mirrored"));
    OK(pair_hold_take(d->a.m, ID_A, "origin", DEADLINE, &hold, &err));
    tip = edit(&d->a, "system/human.md", "two\n");
    FAILS(MEMFS_EUNAVAIL, mirror_exchange(d->a.m, ID_A, "origin", WANT_LOOK,
                                          clock_mono_ms() + 50, &r, &err));
    assert_false(is_remote_at(d, tip));
    pair_hold_release(d->a.m, &hold);
    WAIT_FOR(is_remote_at(d, tip));
    FAILS(MEMFS_ENOTFOUND, pair_hold_take(d->a.m, ID_A, "nobody", DEADLINE, &hold, &err));
}

/* a host that says but one thing */

typedef struct fake {
    int fd;
    uint16_t port;
    pthread_t thread;
    atomic_bool stops;
    atomic_int n_asked;
    _Atomic(const char *) answer; /* status line and headers */
} fake;

static void *serve(void *arg)
{
    fake *h = arg;
    struct pollfd watch = { .fd = h->fd, .events = POLLIN };
    char head[4096];

    while (!atomic_load(&h->stops)) {
        int fd = poll(&watch, 1, 20) == 1 ? accept4(h->fd, NULL, NULL, SOCK_CLOEXEC) : -1;

        if (fd < 0)
            continue;
        if (read(fd, head, sizeof(head)) > 0) {
            _cleanup_(mem_freep) char *text =
                mem_printf("HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                           atomic_load(&h->answer));

            atomic_fetch_add(&h->n_asked, 1);
            assert_true(write(fd, text, strlen(text)) > 0);
        }
        close(fd);
    }
    return NULL;
}

static void fake_start(fake *h, const char *answer)
{
    struct sockaddr_in at = { .sin_family = AF_INET };
    socklen_t n = sizeof(at);

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    h->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(h->fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(h->fd, 64), 0);
    assert_int_equal(getsockname(h->fd, (struct sockaddr *)&at, &n), 0);
    h->port = ntohs(at.sin_port);
    atomic_store(&h->answer, answer);
    assert_int_equal(pthread_create(&h->thread, NULL, serve, h), 0);
}

static void fake_stop(fake *h)
{
    atomic_store(&h->stops, true);
    pthread_join(h->thread, NULL);
    close(h->fd);
}

static void put_token(side *s, const char *token)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/token", s->f->path);

    OK(fs_write_atomic(path, str_of(token), 0600, &err));
}

static void mirror_to(side *s, const fake *h, const char *more)
{
    _cleanup_(mem_freep) char *text =
        mem_printf("[mirror \"origin\"]\n\turl = http://127.0.0.1:%u/{agentId}.git\n\ttokenFile = "
                   "%s/token\n%s", h->port, s->f->path, more);

    put_token(s, "first-token\n");
    configure(s, text);
}

static void test_F15_a_refused_token_is_not_tried_again_until_it_changes(void **state)
{
    fake h = { .fd = -1 };
    duo *d = *state;
    uint32_t n_before;
    int n;

    fake_start(&h, "401 Unauthorized");
    mirror_to(&d->a, &h, "\tpoll = 1\n");
    side_start(&d->a, false);
    edit(&d->a, "system/human.md", "one\n");
    WAIT_FOR(is_state(&d->a, "auth-failed"));
    n = atomic_load(&h.n_asked);
    for (int i = 0; i < 3; i++) {
        uint32_t before = n_exchanges(&d->a);

        edit(&d->a, "system/human.md", i == 0 ? "a\n" : i == 1 ? "b\n" : "c\n");
        WAIT_FOR(n_exchanges(&d->a) > before); /* pushes and polls come by, and nobody is asked */
    }
    assert_int_equal(atomic_load(&h.n_asked), n);
    assert_int_equal(status(&d->a).row.next_try_us, 0); /* no time: a credential is waited for */
    assert_true(strlen(status(&d->a).failure) > 10 && strlen(status(&d->a).advice) > 10);
    assert_true(has_event(&d->a, "not tried again until the credential changes"));
    put_token(&d->a, "second-token\n");
    WAIT_FOR(atomic_load(&h.n_asked) > n);
    n_before = n_exchanges(&d->a);
    WAIT_FOR(n_exchanges(&d->a) > n_before); /* what it answered is written down */
    assert_true(is_state(&d->a, "auth-failed"));
    side_stop(&d->a); /* and it stands over a restart */
    reopen_home(d->a.f);
    n = atomic_load(&h.n_asked);
    side_start(&d->a, false);
    WAIT_FOR(n_exchanges(&d->a) >= 2);
    assert_int_equal(atomic_load(&h.n_asked), n);
    fake_stop(&h);
}

static bool is_gate_closed(side *s)
{
    mirror *m = s->m;
    bool is_closed;

    pthread_mutex_lock(&m->mutex);
    is_closed = gate_is_closed(&m->lanes[0]);
    pthread_mutex_unlock(&m->mutex);
    return is_closed;
}

static void test_F15_one_refused_token_stops_all_agents_that_have_it(void **state)
{
    fake h = { .fd = -1 };
    duo *d = *state;
    int n;

    fake_start(&h, "401 Unauthorized");
    mirror_to(&d->a, &h, "\tpoll = 1\n");
    side_start(&d->a, false);
    for (int i = 0; i < 200; i++) {
        char id[64];

        snprintf(id, sizeof(id), "agent-%08d-1111-4111-8111-111111111111", i);
        mirror_moved(d->a.m, id);
    }
    WAIT_FOR(atomic_load(&h.n_asked) >= 3);
    WAIT_FOR(is_gate_closed(&d->a));
    n = atomic_load(&h.n_asked);
    assert_true(n < 20);
    put_token(&d->a, "second-token\n");
    WAIT_FOR(atomic_load(&h.n_asked) > n); /* the gate opened by itself */
    fake_stop(&h);
}

static void test_F18_a_host_that_is_overrun_is_left_alone_as_long_as_it_says(void **state)
{
    fake h = { .fd = -1 };
    duo *d = *state;
    int64_t left_s;
    seen s;

    fake_start(&h, "429 Too Many Requests\r\nRetry-After: 1200");
    mirror_to(&d->a, &h, "");
    side_start(&d->a, false);
    edit(&d->a, "system/human.md", "one\n");
    WAIT_FOR(is_state(&d->a, "failing"));
    s = status(&d->a);
    left_s = (s.row.next_try_us - clock_wall_us()) / 1000000;
    assert_true(left_s > 1000 && left_s <= 1200);
    edit(&d->a, "system/human.md", "two\n");
    assert_int_equal(atomic_load(&h.n_asked), 1);
    side_stop(&d->a);
    reopen_home(d->a.f);
    side_start(&d->a, false); /* a restart is no reason to ask */
    WAIT_FOR(is_compared(&d->a));
    assert_true((status(&d->a).row.next_try_us - clock_wall_us()) / 1000000 > 900);
    assert_int_equal(atomic_load(&h.n_asked), 1);
    fake_stop(&h);
}

static void test_F18_what_is_no_git_server_is_named(void **state)
{
    static const struct {
        const char *answer, *state, *failure;
    } rows[] = {
        { "501 Not Implemented", "failing", "not implemented" },
        { "200 OK\r\nContent-Type: text/html", "failing", "not a git server" },
        { "502 Bad Gateway\r\nContent-Type: text/html", "failing", "the server fails" },
        { "403 Forbidden", "auth-failed", "credentials refused" },
        { "404 Not Found", "missing", "not found" },
        { "301 Moved Permanently\r\nLocation: https://elsewhere.example/x", "failing",
          "elsewhere.example" },
    };
    fake h = { .fd = -1 };
    duo *d = *state;
    seen s;

    fake_start(&h, rows[0].answer);
    mirror_to(&d->a, &h, "");
    side_start(&d->a, true);
    edit(&d->a, "system/human.md", "one\n");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        atomic_store(&h.answer, rows[i].answer);
        assert_int_equal(sync_now(&d->a).n_failed, 1);
        s = status(&d->a);
        if (strcmp(s.state, rows[i].state) != 0 || strstr(s.failure, rows[i].failure) == NULL)
            fail_msg("%s: %s, %s", rows[i].answer, s.state, s.failure);
    }
    fake_stop(&h);
}

/* everybody at once */

typedef struct hammer {
    duo *d;
    side *s;
    atomic_bool *stops;
} hammer;

static void *hint_and_sync(void *arg)
{
    static const memfs_oid none;
    hammer *h = arg;
    mirror_outcome o;
    seen found;
    memfs_error err;

    while (!atomic_load(h->stops)) {
        mirror_hint(h->s->m, "origin", ID_A, &none);
        mirror_moved(h->s->m, AGENT_A);
        mirror_sync(h->s->m, AGENT_A, DEADLINE, &o);
        if (mirror_status(h->s->m, ID_A, true, keep_row, &found, &err) < 0)
            break;
        mirror_compare_all(h->s->m);
    }
    return NULL;
}

static void write_a_while(duo *d, int rounds)
{
    for (int i = 0; i < rounds; i++) {
        _cleanup_(mem_freep) char *path = mem_printf("system/near-%d.md", i % 3);
        _cleanup_(mem_freep) char *text = mem_printf("round %d\n", i);
        memfs_oid old = tip_of(d->a.f, ID_A);
        _cleanup_(mem_freep) char *repo = mem_printf("%s/" REPO_A, d->a.f->path);
        memfs_oid new;

        git(d->a.f->work, "fetch", "-q", repo, "main");
        git(d->a.f->work, "reset", "-q", "--hard", "FETCH_HEAD");
        old = git_id(d->a.f->work, "HEAD");
        put_file(d->a.f->work, path, str_of(text));
        new = commit_all(d->a.f->work, "near");
        (void)try_push(d->a.f, ID_A, old, new); /* a merge may have been first */
        if (i % 4 == 2)
            mirror_reload(d->a.m, load_remotes(&d->a));
    }
}

static void test_F27_everybody_at_once_ends_in_one_tip(void **state)
{
    atomic_bool stops = false;
    pthread_t threads[4];
    hammer hammers[4];
    duo *d = *state;

    start(d, "\tpoll = 1\n", "\tpoll = 1\n", false);
    edit(&d->a, "system/human.md", "one\n");
    must_sync(&d->a);
    must_sync(&d->b);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        hammers[i] = (hammer){ d, i % 2 == 0 ? &d->a : &d->b, &stops };
        assert_int_equal(pthread_create(&threads[i], NULL, hint_and_sync, &hammers[i]), 0);
    }
    write_a_while(d, 12);
    atomic_store(&stops, true);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        pthread_join(threads[i], NULL);
    WAIT_FOR(same(tip_of(d->a.f, ID_A), tip_of(d->b.f, ID_A)) &&
             is_remote_at(d, tip_of(d->a.f, ID_A)));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, duo_begin, duo_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_F16_an_empty_remote_gets_main),
        TEST(test_an_unknown_agent_is_met_on_the_remote),
        TEST(test_an_unknown_agent_is_met_while_polls_queue),
        TEST(test_too_many_unknown_ids_cost_a_host_nothing),
        TEST(test_an_id_that_was_not_there_is_looked_for_later),
        TEST(test_edits_travel_both_ways),
        TEST(test_a_push_needs_no_question_where_the_remote_is_known),
        TEST(test_F17_a_lost_race_is_merged_and_pushed),
        TEST(test_F28_two_homes_that_merge_the_same_make_one_commit),
        TEST(test_D4_a_push_whose_record_was_lost_ends_in_the_same_state),
        TEST(test_a_remote_that_lost_commits_gets_them_again),
        TEST(test_H5_a_rewritten_remote_is_joined_and_noted),
        TEST(test_H5_unrelated_histories_are_joined_with_both_roots),
        TEST(test_F16_a_deleted_main_is_pushed_again),
        TEST(test_another_default_branch_is_taken_in_and_main_is_pushed),
        TEST(test_T23_a_refused_tip_is_noted_and_stops_nothing_here),
        TEST(test_T23_what_is_too_large_is_fetched_once),
        TEST(test_a_refused_tip_is_joined_with_our_files_by_an_operator),
        TEST(test_F17_a_hosts_refusal_is_kept_with_its_words_escaped),
        TEST(test_F16_a_missing_repository_is_a_state_and_comes_back),
        TEST(test_F16_a_missing_repository_at_a_path_is_made),
        TEST(test_F16_nothing_is_made_where_a_disk_is_not_mounted),
        TEST(test_F16_a_repository_that_is_gone_is_made_anew_on_a_persons_word),
        TEST(test_L5_a_trouble_is_in_the_log_once_a_minute_and_in_the_status_all_the_time),
        TEST(test_L5_troubles_that_take_turns_are_each_told_once_a_minute),
        TEST(test_a_push_only_remote_is_never_merged),
        TEST(test_a_pull_only_remote_is_never_pushed_to),
        TEST(test_an_operator_takes_their_files),
        cmocka_unit_test(test_F18_waits_grow_to_a_quarter_of_an_hour_by_chance),
        cmocka_unit_test(test_every_note_has_a_name_and_advice),
        cmocka_unit_test(test_a_pair_that_rests_is_small),
        TEST(test_many_quiet_agents_are_asked_more_rarely),
        TEST(test_pairs_come_out_of_the_heap_in_the_order_of_their_times),
        TEST(test_a_push_appears_on_the_remote_by_itself),
        TEST(test_F26_polling_finds_what_no_webhook_told),
        TEST(test_a_retry_says_what_it_did),
        TEST(test_F19_what_a_start_finds_undone_is_done),
        TEST(test_F19_failures_and_the_next_try_survive_a_restart),
        TEST(test_F28_a_webhook_of_our_own_push_does_nothing),
        TEST(test_T22_F26_ten_thousand_webhooks_are_a_handful_of_looks),
        TEST(test_F19_L3_a_host_that_is_away_is_asked_by_one_for_all),
        TEST(test_F15_a_refused_token_is_not_tried_again_until_it_changes),
        TEST(test_F15_one_refused_token_stops_all_agents_that_have_it),
        TEST(test_F18_a_host_that_is_overrun_is_left_alone_as_long_as_it_says),
        TEST(test_F18_what_is_no_git_server_is_named),
        TEST(test_L3_a_stop_ends_children),
        TEST(test_L3_a_host_that_hangs_takes_half_of_the_workers),
        TEST(test_L3_two_hosts_that_hang_leave_a_worker_to_a_third),
        TEST(test_L3_hosts_that_are_known_to_hang_leave_a_worker_to_others),
        TEST(test_seen_at_is_when_the_remote_last_told_its_refs),
        TEST(test_a_reload_follows_the_file),
        TEST(test_a_file_that_names_another_address_makes_what_is_known_void),
        TEST(test_a_hold_keeps_everybody_else_off),
        TEST(test_F27_everybody_at_once_ends_in_one_tip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
