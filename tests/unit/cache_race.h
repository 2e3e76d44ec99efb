/*
 * cache_race.h - one writer and four readers, also to be run under -Db_sanitize=thread.  Every
 * commit puts its number into all rows and into the tip, and changes how many rows there are, so a
 * reader that sees two commits mixed sees two numbers or a wrong count.
 */
#ifndef MEMFS_TESTS_CACHE_RACE_H
#define MEMFS_TESTS_CACHE_RACE_H

#include "cache_fixture.h"

#include <pthread.h>
#include <stdatomic.h>

enum { N_READERS = 4, N_COMMITS = 400, N_ROWS = 24 };

typedef struct race {
    fixture *f;
    atomic_bool is_over;
    atomic_uint newest;   /* the last commit that was acknowledged */
    atomic_bool is_lossy; /* the cache is also lost and made anew */
    atomic_uint n_seen;
} race;

UNUSED static unsigned rows_of(unsigned commit)
{
    return N_ROWS / 2 + commit % (N_ROWS / 2);
}

UNUSED static memfs_code write_commit(race *r, unsigned commit, bool from_nothing, memfs_error *err)
{
    char names[N_ROWS][3][24], value[3000];
    block_row rows[N_ROWS];
    cache_change changes[N_ROWS];
    memfs_oid from = oid_of(commit - 1);
    cache_update u = { .agent_id = MEMFS_STR("agent-a"),
                       .from = from_nothing ? NULL : &from,
                       .to = oid_of(commit),
                       .changes = changes,
                       .n_changes = N_ROWS };

    memset(value, 'x', sizeof(value));
    value[snprintf(value, sizeof(value), "%u.", commit)] = 'x';
    value[sizeof(value) - 1] = '\0';
    for (unsigned i = 0; i < N_ROWS; i++) {
        snprintf(names[i][0], sizeof(names[i][0]), "%02u.md", i);
        snprintf(names[i][1], sizeof(names[i][1]), "%02u", i);
        snprintf(names[i][2], sizeof(names[i][2]), "block-%02u", N_ROWS - i);
        rows[i] = row_of(names[i][0], names[i][1], names[i][2], value);
        changes[i] = (cache_change){ rows[i].path, i < rows_of(commit) ? &rows[i] : NULL };
    }
    return cache_apply(r->f->cache, &u, err);
}

typedef struct sight {
    unsigned commit; /* of the first row */
    unsigned n;
} sight;

UNUSED static memfs_code look(const block_row *row, void *ctx, memfs_error *err)
{
    sight *s = ctx;
    unsigned commit = (unsigned)strtoul(row->value.ptr, NULL, 10);

    if (s->n++ == 0)
        s->commit = commit;
    if (commit != s->commit)
        return memfs_fail(err, MEMFS_EINTERNAL, "rows of %u and %u", s->commit, commit);
    return MEMFS_OK;
}

/* What a whole read must be; while caches are reset, it may also be that nothing is there. */
UNUSED static void judge(race *r, memfs_code rc, const memfs_error *err, const sight *s,
                         unsigned at_least)
{
    bool was_reset = atomic_load(&r->is_lossy);

    if (rc != MEMFS_OK) {
        if (!was_reset || (rc != MEMFS_ECORRUPT && rc != MEMFS_ENOTFOUND)) {
            fprintf(stderr, "%s: %s\n", memfs_code_name(rc), err->msg);
            abort();
        }
        return;
    }
    if (s->n == 0 && was_reset)
        return;
    if (s->n != rows_of(s->commit) || (!was_reset && s->commit < at_least)) {
        fprintf(stderr, "%u rows of commit %u, at least %u\n", s->n, s->commit, at_least);
        abort();
    }
    atomic_fetch_add(&r->n_seen, 1);
}

UNUSED static void *read_rows(void *ctx)
{
    race *r = ctx;
    block_query q = { .agent_id = MEMFS_STR("agent-a"), .order = BLOCK_ORDER_ID };
    block_query all = { .show_hidden = true };
    memfs_error err;

    for (unsigned i = 0; !atomic_load(&r->is_over); i++) {
        unsigned at_least = atomic_load(&r->newest);
        cache_tip tip = { .generation = 0 };
        sight s = { 0, 0 };
        memfs_code rc;

        if (i % 3 == 0) {
            rc = cache_blocks(r->f->cache, &all, look, &s, &err);
        } else {
            rc = cache_agent_blocks(r->f->cache, &q, &tip, look, &s, &err);
            memfs_oid expected = oid_of(s.commit);
            if (rc == MEMFS_OK && !oid_equal(&tip.commit, &expected)) {
                fprintf(stderr, "the tip is not the rows' (commit %u)\n", s.commit);
                abort();
            }
        }
        judge(r, rc, &err, &s, at_least);
    }
    return NULL;
}

UNUSED static void run_race(race *r, void (*write)(race *))
{
    pthread_t readers[N_READERS];
    fixture *f = r->f;

    assert_ok(write_commit(r, 1, true, &f->err));
    atomic_store(&r->newest, 1);
    for (int i = 0; i < N_READERS; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, read_rows, r), 0);
    write(r);
    atomic_store(&r->is_over, true);
    for (int i = 0; i < N_READERS; i++)
        pthread_join(readers[i], NULL);
    assert_true(atomic_load(&r->n_seen) > 100);
    assert_ok(cache_check(f->cache, &f->err));
}

#endif
