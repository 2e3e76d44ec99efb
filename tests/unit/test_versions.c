/*
 * Versions: what lies between two commits, in which order, and what each of them changed; compared
 * with a model that knows the whole graph, over graphs by chance whose dates mean nothing.
 */
#include "store_support.h"

#include "store/versions.h"

#define N_FILES 4
#define N_COMMITS 36
#define MAX_PARENTS 3

/* ---- a graph, and the same graph in git ---- */

typedef struct node {
    int parents[MAX_PARENTS];
    int n_parents;
    int files[N_FILES]; /* what each holds; 0: it is not there */
    memfs_oid id;
} node;

typedef struct graph {
    fixture *f;
    repo *r;
    node at[N_COMMITS];
    int n;
    unsigned seed;
    int next_value;
} graph;

static int chance(graph *g, int below)
{
    g->seed = g->seed * 1103515245u + 12345u;
    return (int)((g->seed >> 16) % (unsigned)below);
}

static void add_parent(node *n, int parent)
{
    for (int i = 0; i < n->n_parents; i++)
        if (n->parents[i] == parent)
            return;
    n->parents[n->n_parents++] = parent;
}

static void write_node(const graph *g, int i, long long date, memfs_buf *out)
{
    const node *n = &g->at[i];

    if (n->n_parents == 0) /* else it begins on top of what the ref is at */
        buf_puts(out, "reset refs/heads/all\n\n");
    buf_printf(out, "commit refs/heads/all\nmark :%d\ncommitter a <a@b> %lld +0000\n", i + 1, date);
    buf_printf(out, "data <<EOT\n%d\nEOT\n", i);
    for (int k = 0; k < n->n_parents; k++)
        buf_printf(out, "%s :%d\n", k == 0 ? "from" : "merge", n->parents[k] + 1);
    buf_puts(out, "deleteall\n");
    for (int k = 0; k < N_FILES; k++)
        if (n->files[k] != 0)
            buf_printf(out, "M 100644 inline %s%d.md\ndata <<EOT\n%d\nEOT\n", k % 2 ? "notes/" : "",
                       k, n->files[k]);
    buf_puts(out, "\n");
}

static void read_marks(graph *g, const char *path)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1u << 20);
    memfs_str line, rest;

    assert_ok(g->f, fs_read(path, &text, &g->f->err));
    rest = buf_str(&text);
    while (str_split(rest, '\n', &line, &rest)) {
        memfs_str mark, hex;

        assert_true(str_split(line, ' ', &mark, &hex));
        assert_true(oid_parse(hex, &g->at[atoi(mark.ptr + 1) - 1].id));
    }
}

static long long date_of(graph *g)
{
    return 1000000000ll + chance(g, 30000) * 20000ll;
}

static void import(graph *g, memfs_str stream)
{
    _cleanup_(mem_freep) char *path = store_path(g->f->s, AGENT);
    _cleanup_(mem_freep) char *marks = mem_printf("%s/marks", g->f->root);
    _cleanup_(mem_freep) char *option = mem_printf("--export-marks=%s", marks);
    _cleanup_(buf_dispose) memfs_buf said = MEMFS_BUF_INIT(1u << 20);
    const char *args[] = {
        "-c", "fastimport.unpackLimit=100000", "fast-import", "--quiet", "--force", option, NULL
    };

    if (!store_has(g->f->s, AGENT))
        assert_ok(g->f, store_create(g->f->s, AGENT, &g->f->err));
    assert_ok(g->f, git_try(g->f, path, &said, stream, args));
    read_marks(g, marks);
    repo_close(g->r);
    assert_ok(g->f, repo_open(g->f->s, AGENT, &g->r, &g->f->err));
}

static void write_graph(graph *g)
{
    _cleanup_(buf_dispose) memfs_buf stream = MEMFS_BUF_INIT(4u << 20);

    for (int i = 0; i < g->n; i++)
        write_node(g, i, date_of(g), &stream);
    import(g, buf_str(&stream));
}

/* A merge takes each file from one of its parents; any commit may change one more, or nothing. */
static void fill_files(graph *g, node *n)
{
    for (int k = 0; k < N_FILES && n->n_parents > 0; k++)
        n->files[k] = g->at[n->parents[chance(g, n->n_parents)]].files[k];
    if (chance(g, 5) > 0)
        n->files[chance(g, N_FILES)] = chance(g, 5) == 0 ? 0 : ++g->next_value;
}

/* Mostly lines, with merges of what parted lately or long ago, and now and then another root. */
static void grow_graph(graph *g, fixture *f, unsigned seed)
{
    *g = (graph){ .f = f, .n = N_COMMITS, .seed = seed };
    for (int i = 0; i < g->n; i++) {
        node *n = &g->at[i];
        int reach = chance(g, 6) == 0 ? i : i < 4 ? i : 4;

        if (i > 0 && (i < 3 || chance(g, 20) > 0))
            add_parent(n, i - 1 - chance(g, reach));
        while (n->n_parents > 0 && n->n_parents < MAX_PARENTS && chance(g, 3) == 0)
            add_parent(n, i - 1 - chance(g, i));
        fill_files(g, n);
    }
    write_graph(g);
}

static void grow_line(graph *g, fixture *f, int n)
{
    *g = (graph){ .f = f, .n = n, .seed = 7 };
    for (int i = 0; i < n; i++) {
        if (i > 0) {
            g->at[i] = g->at[i - 1];
            g->at[i].n_parents = 0;
            add_parent(&g->at[i], i - 1);
        }
        g->at[i].files[0] = i + 1;
    }
    write_graph(g);
}

static void graph_end(graph *g)
{
    repo_close(g->r);
    g->r = NULL;
}

static void reach(const graph *g, int from, bool *ret)
{
    ret[from] = true;
    for (int i = from; i >= 0; i--)
        for (int k = 0; ret[i] && k < g->at[i].n_parents; k++)
            ret[g->at[i].parents[k]] = true;
}

static bool has_changed(const graph *g, int i, int file)
{
    for (int k = 0; k < g->at[i].n_parents; k++)
        if (g->at[g->at[i].parents[k]].files[file] == g->at[i].files[file])
            return false;
    return g->at[i].n_parents > 0 || g->at[i].files[file] != 0;
}

/* ---- what came ---- */

typedef struct came {
    graph *g;
    int at[N_COMMITS * 2];
    int n;
} came;

static int file_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return atoi(slash != NULL ? slash + 1 : path);
}

static void check_paths(graph *g, int i, const versions_commit *c)
{
    int n_wanted = 0;

    for (int file = 0; file < N_FILES; file++)
        n_wanted += has_changed(g, i, file);
    assert_int_equal((int)c->n_paths, n_wanted);
    for (size_t k = 0; k < c->n_paths; k++) {
        _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1024);
        int file = file_of(c->paths[k].path);

        assert_true(has_changed(g, i, file));
        assert_true(k == 0 || strcmp(c->paths[k - 1].path, c->paths[k].path) < 0);
        assert_true(oid_is_zero(&c->paths[k].blob) == (g->at[i].files[file] == 0));
        if (oid_is_zero(&c->paths[k].blob))
            continue;
        assert_ok(g->f, repo_blob(g->r, &c->paths[k].blob, 1024, &text, &g->f->err));
        assert_int_equal(atoi(text.ptr), g->at[i].files[file]);
    }
}

static memfs_code note(const versions_commit *c, void *ctx, memfs_error *err)
{
    came *all = ctx;
    int i = atoi(c->info->message.ptr);

    (void)err;
    assert_true(i >= 0 && i < all->g->n && all->n < N_COMMITS * 2);
    assert_true(oid_equal(&c->id, &all->g->at[i].id));
    check_paths(all->g, i, c);
    all->at[all->n++] = i;
    return MEMFS_OK;
}

static void walk(graph *g, int from, int to, came *ret)
{
    const policy p = POLICY_INIT;

    *ret = (came){ .g = g };
    assert_ok(g->f, versions_walk(g->r, from < 0 ? NULL : &g->at[from].id, &g->at[to].id, 0, &p,
                                  note, ret, &g->f->err));
}

static void list(graph *g, int tip, const versions_page *page, came *ret)
{
    const policy p = POLICY_INIT;

    *ret = (came){ .g = g };
    assert_ok(g->f, versions_list(g->r, &g->at[tip].id, page, &p, note, ret, &g->f->err));
}

/* ---- between two ---- */

static void check_walk(graph *g, int from, int to)
{
    bool wanted[N_COMMITS] = { false }, without[N_COMMITS] = { false }, seen[N_COMMITS] = { false };
    int n_wanted = 0;
    came all;

    walk(g, from, to, &all);
    reach(g, to, wanted);
    if (from >= 0)
        reach(g, from, without);
    for (int i = 0; i < g->n; i++)
        n_wanted += wanted[i] = wanted[i] && !without[i];
    assert_int_equal(all.n, n_wanted);
    for (int i = 0; i < all.n; i++) {
        const node *n = &g->at[all.at[i]];

        assert_true(wanted[all.at[i]] && !seen[all.at[i]]);
        for (int k = 0; k < n->n_parents; k++)
            assert_true(!wanted[n->parents[k]] || seen[n->parents[k]]);
        seen[all.at[i]] = true;
    }
}

static void test_H7_what_lies_between_two_commits_is_the_graphs_alone(void **state)
{
    for (unsigned seed = 1; seed <= 12; seed++) {
        graph g;

        grow_graph(&g, *state, seed);
        for (int to = 0; to < g.n; to += 1 + to / 12) {
            check_walk(&g, -1, to);
            for (int from = 0; from < g.n; from += 3)
                check_walk(&g, from, to);
        }
        graph_end(&g);
    }
}

static void remove_loose(graph *g, int i)
{
    _cleanup_(mem_freep) char *path = store_path(g->f->s, AGENT);
    _cleanup_(mem_freep) char *file = NULL;
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(&g->at[i].id, hex);
    file = mem_printf("%s/objects/%.2s/%s", path, hex, hex + 2);
    assert_int_equal(unlink(file), 0);
    repo_close(g->r);
    assert_ok(g->f, repo_open(g->f->s, AGENT, &g->r, &g->f->err));
}

/* Commits that must not be read are not there. */
static void test_a_step_costs_what_it_is_long_not_the_history(void **state)
{
    const versions_page page = { .limit = 5 };
    const policy p = POLICY_INIT;
    graph g;
    came all;

    grow_line(&g, *state, 30);
    remove_loose(&g, 10);
    walk(&g, 26, 29, &all);
    assert_int_equal(all.n, 3);
    list(&g, 29, &page, &all);
    assert_int_equal(all.n, 5);
    assert_code(g.f, MEMFS_ECORRUPT,
                versions_walk(g.r, NULL, &g.at[29].id, 0, &p, note, &all, &g.f->err));
    graph_end(&g);
}

/* A line: of what is new and of what lies behind it, a commit each in turn. */
static void test_L3_a_walk_looks_at_no_more_commits_than_it_may(void **state)
{
    const policy p = POLICY_INIT;
    graph g;
    came all = { .n = 0 };

    grow_line(&g, *state, 30);
    all.g = &g;
    assert_code(g.f, MEMFS_ELIMIT,
                versions_walk(g.r, &g.at[19].id, &g.at[29].id, 18, &p, note, &all, &g.f->err));
    assert_int_equal(all.n, 0);
    assert_ok(g.f, versions_walk(g.r, &g.at[19].id, &g.at[29].id, 19, &p, note, &all, &g.f->err));
    assert_int_equal(all.n, 10);
    assert_code(g.f, MEMFS_ELIMIT,
                versions_walk(g.r, NULL, &g.at[29].id, 29, &p, note, &all, &g.f->err));
    graph_end(&g);
}

static void test_a_walk_to_where_it_begins_has_nothing(void **state)
{
    graph g;
    came all;

    grow_line(&g, *state, 6);
    walk(&g, 4, 4, &all);
    assert_int_equal(all.n, 0);
    walk(&g, 5, 2, &all);
    assert_int_equal(all.n, 0);
    graph_end(&g);
}

static memfs_code stop(const versions_commit *c, void *ctx, memfs_error *err)
{
    (void)c;
    ++*(int *)ctx;
    return memfs_fail(err, MEMFS_EEXISTS, "that will do");
}

static void test_whoever_is_told_may_end_it(void **state)
{
    const versions_page page = { .limit = 0 };
    const policy p = POLICY_INIT;
    int n = 0;
    graph g;

    grow_line(&g, *state, 6);
    assert_code(g.f, MEMFS_EEXISTS,
                versions_walk(g.r, NULL, &g.at[5].id, 0, &p, stop, &n, &g.f->err));
    assert_code(g.f, MEMFS_EEXISTS,
                versions_list(g.r, &g.at[5].id, &page, &p, stop, &n, &g.f->err));
    assert_int_equal(n, 2);
    graph_end(&g);
}

/* ---- the list ---- */

static void check_pages(graph *g, int tip, const came *whole, memfs_str path)
{
    versions_page page = { .path = path, .limit = 3 };
    int n = 0;
    came some;

    do {
        list(g, tip, &page, &some);
        for (int i = 0; i < some.n; i++)
            assert_int_equal(some.at[i], whole->at[n + i]);
        n += some.n;
        page.before = &g->at[n > 0 ? whole->at[n - 1] : tip].id;
    } while (some.n == 3);
    assert_int_equal(n, whole->n);
}

static void test_the_list_is_the_walk_turned_round_whatever_its_pages(void **state)
{
    for (unsigned seed = 21; seed <= 26; seed++) {
        const versions_page all_of_it = { .limit = 0 };
        came walked, listed;
        graph g;

        grow_graph(&g, *state, seed);
        for (int tip = 1; tip < g.n; tip += 5) {
            walk(&g, -1, tip, &walked);
            list(&g, tip, &all_of_it, &listed);
            assert_int_equal(walked.n, listed.n);
            for (int i = 0; i < listed.n; i++)
                assert_int_equal(listed.at[i], walked.at[walked.n - 1 - i]);
            check_pages(&g, tip, &listed, MEMFS_STR(""));
        }
        graph_end(&g);
    }
}

static int check_list_of_file(graph *g)
{
    const versions_page all_of_it = { .limit = 0 };
    const versions_page of_file = { .path = MEMFS_STR("notes/1.md") };
    came whole, wanted = { .g = g }, listed;

    list(g, g->n - 1, &all_of_it, &whole);
    for (int i = 0; i < whole.n; i++)
        if (has_changed(g, whole.at[i], 1))
            wanted.at[wanted.n++] = whole.at[i];
    list(g, g->n - 1, &of_file, &listed);
    assert_int_equal(listed.n, wanted.n);
    check_pages(g, g->n - 1, &wanted, of_file.path);
    return listed.n;
}

static void test_the_list_of_a_file_has_the_commits_that_changed_it(void **state)
{
    int n = 0;

    for (unsigned seed = 31; seed <= 36; seed++) {
        graph g;

        grow_graph(&g, *state, seed);
        n += check_list_of_file(&g);
        graph_end(&g);
    }
    assert_true(n > 12);
}

static void test_a_folder_and_what_never_was_have_no_versions(void **state)
{
    const versions_page folder = { .path = MEMFS_STR("notes") };
    const versions_page never = { .path = MEMFS_STR("0.md/x") };
    graph g;
    came listed;

    grow_graph(&g, *state, 32);
    list(&g, g.n - 1, &folder, &listed);
    assert_int_equal(listed.n, 0);
    list(&g, g.n - 1, &never, &listed);
    assert_int_equal(listed.n, 0);
    graph_end(&g);
}

/* ---- is it in there? ---- */

static void test_T28_only_what_the_tip_leads_to_is_in_its_history(void **state)
{
    const versions_page page = { .before = &(memfs_oid){ { 1 } } };
    const policy p = POLICY_INIT;
    graph g;
    came all;

    grow_graph(&g, *state, 41);
    for (int tip = 0; tip < g.n; tip += 7) {
        bool wanted[N_COMMITS] = { false }, has;

        reach(&g, tip, wanted);
        for (int i = 0; i < g.n; i++) {
            assert_ok(g.f, versions_has(g.r, &g.at[tip].id, &g.at[i].id, &has, &g.f->err));
            assert_true(has == wanted[i]);
        }
        assert_ok(g.f, versions_has(g.r, &g.at[tip].id, page.before, &has, &g.f->err));
        assert_false(has);
    }
    all = (came){ .g = &g };
    assert_code(g.f, MEMFS_ENOTFOUND,
                versions_list(g.r, &g.at[5].id, &page, &p, note, &all, &g.f->err));
    graph_end(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_H7_what_lies_between_two_commits_is_the_graphs_alone,
                                        fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_a_step_costs_what_it_is_long_not_the_history,
                                        fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_L3_a_walk_looks_at_no_more_commits_than_it_may,
                                        fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_a_walk_to_where_it_begins_has_nothing, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(test_whoever_is_told_may_end_it, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(test_the_list_is_the_walk_turned_round_whatever_its_pages,
                                        fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_the_list_of_a_file_has_the_commits_that_changed_it,
                                        fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_a_folder_and_what_never_was_have_no_versions,
                                        fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_T28_only_what_the_tip_leads_to_is_in_its_history,
                                        fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
