/*
 * Two commits into one: the table of design 7 over whole trees, with real git looking at the outcome.
 *
 * Every merge here is made in both orders, must be the same commit, and must leave a repository that
 * git fsck --strict finds whole.
 */
#include "store_support.h"

#include "store/history.h"
#include "store/merge.h"

#include <inttypes.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#else
#define __lsan_disable() ((void)0)
#define __lsan_enable() ((void)0)
#endif

typedef struct history {
    fixture *f;
    char *path;
    repo *r;
    int n;
} history;

static history begin(fixture *f)
{
    assert_ok(f, store_create(f->s, AGENT, &f->err));
    return (history){ f, store_path(f->s, AGENT), NULL, 0 };
}

static void end(history *h)
{
    repo_close(h->r);
    free(h->path);
}

#define MAX_PARENTS 2
typedef struct parents {
    const memfs_oid *at[MAX_PARENTS];
} parents;
#define NONE ((parents){ { NULL } })
#define OF(a) ((parents){ { (a) } })
#define BOTH(a, b) ((parents){ { (a), (b) } })

static void add_file(memfs_buf *in, const char *path, const char *text)
{
    const char *mode = path[0] == '*' ? "100755" : path[0] == '@' ? "120000" : "100644";

    path += path[0] == '*' || path[0] == '@';
    buf_printf(in, "M %s inline \"", mode);
    for (; *path != '\0'; path++)
        buf_printf(in, *path == '"' || *path == '\\' ? "\\%c" : "%c", *path);
    /* "0:" stands for bytes that are no text */
    if (strncmp(text, "0:", 2) == 0) {
        buf_printf(in, "\"\ndata %zu\n", strlen(text) - 1);
        buf_putc(in, '\0');
        text += 2;
    } else {
        buf_printf(in, "\"\ndata %zu\n", strlen(text));
    }
    buf_printf(in, "%s\n", text);
}

/* A commit of exactly these files: path, text, path, text, ..., NULL. */
static memfs_oid commit_at(history *h, int64_t time_s, parents of, const char *const *files)
{
    static const char *const args[] = { "fast-import", "--quiet", "--force", NULL };
    _cleanup_(buf_dispose) memfs_buf in = MEMFS_BUF_INIT(1u << 20), out = MEMFS_BUF_INIT(4096);
    char branch[64], hex[MEMFS_OID_HEX + 1];

    snprintf(branch, sizeof(branch), "refs/heads/t%d", ++h->n);
    buf_printf(&in, "reset %s\n\ncommit %s\ncommitter a <a@b> %" PRId64 " +0100\ndata 4\ntest\n",
               branch, branch, time_s);
    for (int i = 0; i < MAX_PARENTS && of.at[i] != NULL; i++) {
        oid_hex(of.at[i], hex);
        buf_printf(&in, "%s %s\n", i == 0 ? "from" : "merge", hex);
    }
    buf_puts(&in, "deleteall\n");
    for (; files[0] != NULL; files += 2)
        add_file(&in, files[0], files[1]);
    assert_ok(h->f, git_try(h->f, h->path, &out, buf_str(&in), args));
    repo_close(h->r);
    h->r = NULL;
    assert_ok(h->f, repo_open(h->f->s, AGENT, &h->r, &h->f->err));
    return git_id(h->f, h->path, branch);
}

#define FILES(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define NO_FILES ((const char *const[]){ NULL })
#define COMMIT(h, of, ...) commit_at(h, 1700000000 + (h)->n, of, FILES(__VA_ARGS__))

/* ---- looking ---- */

static void git_says(history *h, memfs_buf *out, const char *const *args)
{
    buf_clear(out);
    assert_ok(h->f, git_try(h->f, h->path, out, MEMFS_STR(""), args));
    while (out->len > 0 && out->ptr[out->len - 1] == '\n')
        buf_truncate(out, out->len - 1);
}

/* "path path ..." of a tree, in git's order. */
static void assert_paths(history *h, const memfs_oid *commit, const char *wanted)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(commit, hex);
    git_says(h, &out, (const char *[]){ "-c", "core.quotePath=false", "ls-tree", "-r",
                                        "--name-only", hex, NULL });
    for (size_t i = 0; i < out.len; i++)
        if (out.ptr[i] == '\n')
            out.ptr[i] = ' ';
    assert_string_equal(out.ptr, wanted);
}

static void assert_text(history *h, const memfs_oid *commit, const char *path, const char *wanted)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    char hex[MEMFS_OID_HEX + 1];
    char *name;

    oid_hex(commit, hex);
    name = mem_printf("%s:%s", hex, path);
    assert_ok(h->f, git_try(h->f, h->path, &out, MEMFS_STR(""),
                            (const char *[]){ "cat-file", "blob", name, NULL }));
    assert_string_equal(out.ptr, wanted);
    free(name);
}

/* Which of two texts that met comes first is the business of memory/merge.c. */
static void assert_either(history *h, const memfs_oid *commit, const char *path, const char *one,
                          const char *other)
{
    memfs_oid id;
    char hex[MEMFS_OID_HEX + 1], *name;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);

    oid_hex(commit, hex);
    name = mem_printf("%s:%s", hex, path);
    id = git_id(h->f, h->path, name);
    free(name);
    assert_ok(h->f, repo_blob(h->r, &id, 1u << 20, &out, &h->f->err));
    if (strcmp(out.ptr, one) != 0)
        assert_string_equal(out.ptr, other);
}

/* "dir/name.<seven digits of the blob>.ext", as the design has it; ext may be "". */
static char *beside(history *h, const memfs_oid *commit, const char *path, const char *stem,
                    const char *ext)
{
    char hex[MEMFS_OID_HEX + 1], *name;
    memfs_oid id;

    oid_hex(commit, hex);
    name = mem_printf("%s:%s", hex, path);
    id = git_id(h->f, h->path, name);
    free(name);
    oid_hex(&id, hex);
    return mem_printf("%s.%.7s%s", stem, hex, ext);
}

static const merge_note *note_for(const merge_result *m, merge_rule rule, const char *path)
{
    for (size_t i = 0; i < m->n_notes; i++)
        if (m->notes[i].rule == rule && strcmp(m->notes[i].path, path) == 0)
            return &m->notes[i];
    fail_msg("no note '%s' for '%s' among %zu", merge_rule_name(rule), path, m->n_notes);
    return NULL;
}

static void assert_notes_equal(const merge_result *a, const merge_result *b)
{
    assert_int_equal(a->n_notes, b->n_notes);
    for (size_t i = 0; i < a->n_notes; i++) {
        assert_int_equal(a->notes[i].rule, b->notes[i].rule);
        assert_string_equal(a->notes[i].path, b->notes[i].path);
        assert_string_equal(a->notes[i].detail, b->notes[i].detail);
    }
}

/* In both orders; notes are in the message, too. */
static merge_result merge(history *h, const memfs_oid *a, const memfs_oid *b)
{
    merge_result ret = MERGE_RESULT_INIT, other = MERGE_RESULT_INIT, read = MERGE_RESULT_INIT;

    assert_ok(h->f, merge_commits(h->r, a, b, &ret, &h->f->err));
    assert_ok(h->f, merge_commits(h->r, b, a, &other, &h->f->err));
    assert_true(oid_equal(&ret.commit, &other.commit));
    assert_notes_equal(&ret, &other);
    assert_ok(h->f, merge_notes_of(h->r, &ret.commit, &read, &h->f->err));
    if (ret.is_merge)
        assert_notes_equal(&ret, &read);
    merge_result_dispose(&other);
    merge_result_dispose(&read);
    assert_whole(h->f, AGENT);
    return ret;
}

static memfs_oid id_in(history *h, const memfs_oid *commit, const char *path)
{
    char hex[MEMFS_OID_HEX + 1], *name;
    memfs_oid id;

    oid_hex(commit, hex);
    name = mem_printf("%s:%s", hex, path);
    id = git_id(h->f, h->path, name);
    free(name);
    return id;
}

/* ---- the commit ---- */

static void test_the_merge_commit_is_made_of_its_parents_alone(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "x", "x\n");
    memfs_oid a = commit_at(&h, 1800000000, OF(&base), FILES("x", "x\n", "a", "a\n"));
    memfs_oid b = commit_at(&h, 1700000009, OF(&base), FILES("x", "x\n", "b", "b\n"));
    merge_result m = merge(&h, &a, &b);
    bool is_swapped = memcmp(a.id, b.id, sizeof(a.id)) > 0;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    char one[MEMFS_OID_HEX + 1], two[MEMFS_OID_HEX + 1], hex[MEMFS_OID_HEX + 1];
    char *wanted;

    oid_hex(is_swapped ? &b : &a, one);
    oid_hex(is_swapped ? &a : &b, two);
    oid_hex(&m.commit, hex);
    git_says(&h, &out, (const char *[]){ "log", "-1", "--format=%P|%an <%ae>|%cn <%ce>|%ad|%cd|%B",
                                         "--date=raw", hex, NULL });
    wanted = mem_printf("%s %s|memfs <memfs@localhost>|memfs <memfs@localhost>|1800000000 +0000|"
                        "1800000000 +0000|memfs: merge %.7s and %.7s",
                        one, two, one, two);
    assert_string_equal(out.ptr, wanted);
    assert_true(m.is_merge);
    assert_false(m.is_unrelated);
    assert_int_equal(m.n_notes, 0);
    assert_paths(&h, &m.commit, "a b x");
    free(wanted);
    merge_result_dispose(&m);
    end(&h);
}

static void test_a_commit_that_contains_the_other_is_the_merge(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "x", "x\n");
    memfs_oid next = COMMIT(&h, OF(&base), "x", "y\n");
    merge_result m = merge(&h, &base, &next);

    assert_true(oid_equal(&m.commit, &next));
    assert_false(m.is_merge);
    merge_result_dispose(&m);
    m = merge(&h, &next, &next);
    assert_true(oid_equal(&m.commit, &next));
    assert_false(m.is_merge);
    merge_result_dispose(&m);
    end(&h);
}

static void test_a_merge_contains_both_and_merging_it_again_changes_nothing(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "x", "1\n2\n3\n");
    memfs_oid a = COMMIT(&h, OF(&base), "x", "1 a\n2\n3\n");
    memfs_oid b = COMMIT(&h, OF(&base), "x", "1 b\n2\n3\n");
    merge_result m = merge(&h, &a, &b), again = merge(&h, &m.commit, &a);

    assert_true(oid_equal(&again.commit, &m.commit));
    merge_result_dispose(&again);
    merge_result_dispose(&m);
    end(&h);
}

static void test_how_two_commits_stand_to_each_other(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "x", "x\n");
    memfs_oid a = COMMIT(&h, OF(&base), "x", "a\n"), a2 = COMMIT(&h, OF(&a), "x", "a2\n");
    memfs_oid b = COMMIT(&h, OF(&base), "x", "b\n"), other = COMMIT(&h, NONE, "y", "y\n");
    const struct {
        const memfs_oid *one, *two;
        merge_relation wanted;
        size_t n_ahead, n_behind;
    } rows[] = {
        { &a, &a, MERGE_EQUAL, 0, 0 },         { &a2, &base, MERGE_AHEAD, 2, 0 },
        { &base, &a2, MERGE_BEHIND, 0, 2 },    { &a2, &b, MERGE_DIVERGED, 2, 1 },
        { &a2, &other, MERGE_UNRELATED, 3, 1 },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        merge_relation got;
        size_t n_ahead, n_behind;

        assert_ok(h.f, merge_relate(h.r, rows[i].one, rows[i].two, &got, &n_ahead, &n_behind,
                                    &h.f->err));
        assert_int_equal(got, rows[i].wanted);
        assert_int_equal(n_ahead, rows[i].n_ahead);
        assert_int_equal(n_behind, rows[i].n_behind);
        assert_ok(h.f, merge_relate(h.r, rows[i].one, rows[i].two, &got, NULL, NULL, &h.f->err));
        assert_int_equal(got, rows[i].wanted);
    }
    end(&h);
}

/* H7: clocks that stand still, jump and run backward must not change what is counted. */
static void test_how_commits_stand_does_not_hang_on_their_dates(void **state)
{
    history h = begin(*state);
    memfs_oid a = commit_at(&h, 1700000000, NONE, FILES("x", "x")), b = a;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    char one[MEMFS_OID_HEX + 1], two[MEMFS_OID_HEX + 1], *range, *wanted;
    unsigned random = 7;

    for (int i = 0; i < 24; i++) {
        memfs_oid *side = i % 3 == 0 ? &b : &a, *other = side == &a ? &b : &a;
        char name[16];
        merge_relation relation;
        size_t n_ahead, n_behind;

        random = random * 1103515245 + 12345;
        snprintf(name, sizeof(name), "f%d", i);
        *side = commit_at(&h, 1 + random % 1800000000, i % 7 == 6 ? BOTH(side, other) : OF(side),
                          FILES("x", "x", name, "y"));
        assert_ok(h.f, merge_relate(h.r, &a, &b, &relation, &n_ahead, &n_behind, &h.f->err));
        oid_hex(&a, one);
        oid_hex(&b, two);
        range = mem_printf("%s...%s", one, two);
        git_says(&h, &out, (const char *[]){ "rev-list", "--left-right", "--count", range, NULL });
        wanted = mem_printf("%zu\t%zu", n_ahead, n_behind);
        assert_string_equal(out.ptr, wanted);
        assert_int_equal(relation, n_ahead > 0 && n_behind > 0 ? MERGE_DIVERGED
                                   : n_ahead > 0               ? MERGE_AHEAD
                                                               : MERGE_BEHIND);
        free(range);
        free(wanted);
    }
    end(&h);
}

/* ---- files ---- */

static void test_what_one_side_changed_is_taken(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "gone-a", "1", "gone-b", "2", "new-in-a", "3", "new-in-b",
                            "4", "same", "5", "d/x", "6", "d/y", "7");
    memfs_oid a = COMMIT(&h, OF(&base), "gone-b", "2", "new-in-a", "3a", "new-in-b", "4", "same",
                         "5", "d/x", "6a", "d/y", "7", "added/by/a", "8");
    memfs_oid b = COMMIT(&h, OF(&base), "gone-a", "1", "new-in-a", "3", "new-in-b", "4b", "same",
                         "5", "d/x", "6", "d/y", "7b", "e/added", "9");
    merge_result m = merge(&h, &a, &b);

    assert_paths(&h, &m.commit, "added/by/a d/x d/y e/added new-in-a new-in-b same");
    assert_text(&h, &m.commit, "new-in-a", "3a");
    assert_text(&h, &m.commit, "new-in-b", "4b");
    assert_text(&h, &m.commit, "d/x", "6a");
    assert_text(&h, &m.commit, "d/y", "7b");
    assert_int_equal(m.n_notes, 0);
    merge_result_dispose(&m);
    end(&h);
}

static void test_lines_apart_are_merged_and_lines_that_met_are_both_kept(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "apart", "1\n2\n3\n4\n5\n", "met", "1\n2\n3\n");
    memfs_oid a = COMMIT(&h, OF(&base), "apart", "1a\n2\n3\n4\n5\n", "met", "1\nmine\n3\n");
    memfs_oid b = COMMIT(&h, OF(&base), "apart", "1\n2\n3\n4\n5b\n", "met", "1\nyours\n3\n");
    merge_result m = merge(&h, &a, &b);

    assert_text(&h, &m.commit, "apart", "1a\n2\n3\n4\n5b\n");
    assert_either(&h, &m.commit, "met", "1\nmine\nyours\n3\n", "1\nyours\nmine\n3\n");
    note_for(&m, MERGE_RULE_LINES, "met");
    assert_int_equal(m.n_notes, 1);
    merge_result_dispose(&m);
    end(&h);
}

static void test_what_one_side_changed_and_the_other_deleted_stays(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "x", "x\n", "d/y", "y\n", "d/z", "z\n", "keep", "k\n");
    memfs_oid a = COMMIT(&h, OF(&base), "x", "changed\n", "keep", "k\n");
    memfs_oid b = COMMIT(&h, OF(&base), "d/y", "changed\n", "d/z", "z\n", "keep", "k\n");
    merge_result m = merge(&h, &a, &b);

    assert_paths(&h, &m.commit, "d/y keep x");
    note_for(&m, MERGE_RULE_KEPT_CHANGED, "x");
    note_for(&m, MERGE_RULE_KEPT_CHANGED, "d/y");
    assert_int_equal(m.n_notes, 2);
    merge_result_dispose(&m);
    end(&h);
}

static void test_what_both_added_is_merged_over_nothing(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "x", "x\n");
    memfs_oid a = COMMIT(&h, OF(&base), "x", "x\n", "new", "same\nmine\n");
    memfs_oid b = COMMIT(&h, OF(&base), "x", "x\n", "new", "same\nyours\n");
    merge_result m = merge(&h, &a, &b);

    assert_either(&h, &m.commit, "new", "same\nmine\nyours\n", "same\nyours\nmine\n");
    note_for(&m, MERGE_RULE_ADDED_TWICE, "new");
    merge_result_dispose(&m);
    end(&h);
}

static void test_what_is_no_text_is_kept_twice(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "d/p.png", "0:base", "keep", "k");
    memfs_oid a = COMMIT(&h, OF(&base), "d/p.png", "0:mine", "keep", "k");
    memfs_oid b = COMMIT(&h, OF(&base), "d/p.png", "0:yours", "keep", "k");
    merge_result m = merge(&h, &a, &b);
    memfs_oid ia = id_in(&h, &a, "d/p.png"), ib = id_in(&h, &b, "d/p.png"), first, second;
    bool a_first = memcmp(ia.id, ib.id, sizeof(ia.id)) < 0;
    char *name = beside(&h, a_first ? &b : &a, "d/p.png", "d/p", ".png");

    first = id_in(&h, &m.commit, "d/p.png");
    second = id_in(&h, &m.commit, name);
    assert_true(oid_equal(&first, a_first ? &ia : &ib));
    assert_true(oid_equal(&second, a_first ? &ib : &ia));
    assert_string_equal(note_for(&m, MERGE_RULE_BINARY, "d/p.png")->detail, name);
    free(name);
    merge_result_dispose(&m);
    end(&h);
}

static void test_the_mode_follows_the_side_that_changed_it(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "s", "1\n2\n3\n", "*t", "t\n");
    memfs_oid a = COMMIT(&h, OF(&base), "*s", "1\n2\n3\n", "*t", "changed\n", "*u", "u\n");
    memfs_oid b = COMMIT(&h, OF(&base), "s", "1\n2\nthree\n", "t", "t\n", "u", "u\n");
    merge_result m = merge(&h, &a, &b);
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(&m.commit, hex);
    git_says(&h, &out, (const char *[]){ "ls-tree", "--format=%(objectmode) %(path)", hex, NULL });
    assert_string_equal(out.ptr, "100755 s\n100644 t\n100755 u");
    assert_text(&h, &m.commit, "s", "1\n2\nthree\n");
    assert_text(&h, &m.commit, "t", "changed\n");
    merge_result_dispose(&m);
    end(&h);
}

static void test_links_are_kept_twice_and_never_read_as_text(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "@l", "base", "keep", "k");
    memfs_oid a = COMMIT(&h, OF(&base), "@l", "mine", "keep", "k");
    memfs_oid b = COMMIT(&h, OF(&base), "l", "a file\n", "keep", "k");
    merge_result m = merge(&h, &a, &b);

    note_for(&m, MERGE_RULE_BINARY, "l");
    assert_int_equal(m.n_notes, 1);
    merge_result_dispose(&m);
    end(&h);
}

/* ---- renames ---- */

static void test_an_edit_follows_a_rename(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "old", "1\n2\n3\n4\n", "keep", "k");
    memfs_oid a = COMMIT(&h, OF(&base), "d/new", "1\n2\n3\n4\n", "keep", "k");
    memfs_oid b = COMMIT(&h, OF(&base), "old", "1\n2\n3\n4\n5\n", "keep", "k");
    merge_result m = merge(&h, &a, &b);

    assert_paths(&h, &m.commit, "d/new keep");
    assert_text(&h, &m.commit, "d/new", "1\n2\n3\n4\n5\n");
    assert_string_equal(note_for(&m, MERGE_RULE_FOLLOWED, "d/new")->detail, "old");
    assert_int_equal(m.n_notes, 1);
    merge_result_dispose(&m);
    end(&h);
}

static void test_an_edit_follows_into_a_folder_that_only_one_side_touched(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "old", "1\n2\n3\n4\n", "d/e/keep", "k");
    memfs_oid a = COMMIT(&h, OF(&base), "d/e/new", "1\n2\n3\n4\nmine\n", "d/e/keep", "k");
    memfs_oid b = COMMIT(&h, OF(&base), "old", "yours\n1\n2\n3\n4\n", "d/e/keep", "k");
    merge_result m = merge(&h, &a, &b);

    assert_paths(&h, &m.commit, "d/e/keep d/e/new");
    assert_text(&h, &m.commit, "d/e/new", "yours\n1\n2\n3\n4\nmine\n");
    merge_result_dispose(&m);
    end(&h);
}

static void test_edits_follow_a_whole_folder_that_moved(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "d/x", "x\n", "d/y", "y\n", "d/z", "z\n", "k", "k");
    memfs_oid a = COMMIT(&h, OF(&base), "e/x", "x\n", "e/y", "y\n", "e/z", "z\n", "k", "k");
    memfs_oid b = COMMIT(&h, OF(&base), "d/x", "x\n", "d/y", "y\nmore\n", "d/z", "z\n", "k", "k");
    merge_result m = merge(&h, &a, &b);

    assert_paths(&h, &m.commit, "e/x e/y e/z k");
    assert_text(&h, &m.commit, "e/y", "y\nmore\n");
    merge_result_dispose(&m);
    end(&h);
}

static void test_a_file_that_both_renamed_is_one_file(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "old", "1\n2\n3\n4\n", "k", "k");
    memfs_oid a = COMMIT(&h, OF(&base), "name-b", "1\n2\n3\n4\nmine\n", "k", "k");
    memfs_oid b = COMMIT(&h, OF(&base), "d/name-a", "yours\n1\n2\n3\n4\n", "k", "k");
    merge_result m = merge(&h, &a, &b);

    assert_paths(&h, &m.commit, "d/name-a k");
    assert_text(&h, &m.commit, "d/name-a", "yours\n1\n2\n3\n4\nmine\n");
    assert_string_equal(note_for(&m, MERGE_RULE_RENAMED_TWICE, "d/name-a")->detail, "name-b");
    merge_result_dispose(&m);
    end(&h);
}

static void test_a_file_that_both_renamed_alike_has_its_base(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "old", "1\n2\n3\n4\n", "k", "k");
    memfs_oid a = COMMIT(&h, OF(&base), "new", "1\n3\n4\nmine\n", "k", "k");
    memfs_oid b = COMMIT(&h, OF(&base), "new", "yours\n1\n2\n3\n4\n", "k", "k");
    merge_result m = merge(&h, &a, &b);

    assert_paths(&h, &m.commit, "k new");
    assert_text(&h, &m.commit, "new", "yours\n1\n3\n4\nmine\n"); /* "2" was deleted by a */
    assert_int_equal(m.n_notes, 0);
    merge_result_dispose(&m);
    end(&h);
}

static void test_a_rename_onto_a_name_that_is_taken_is_none(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "old", "1\n2\n3\n4\n", "k", "k");
    memfs_oid a = COMMIT(&h, OF(&base), "new", "1\n2\n3\n4\n", "k", "k");
    memfs_oid b = COMMIT(&h, OF(&base), "old", "1\n2\n3\n4\nyours\n", "new", "other\n", "k", "k");
    merge_result m = merge(&h, &a, &b);

    assert_paths(&h, &m.commit, "k new old");
    assert_text(&h, &m.commit, "old", "1\n2\n3\n4\nyours\n");
    merge_result_dispose(&m);
    end(&h);
}

static void test_what_shares_too_little_did_not_move(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "old", "1\n2\n3\n4\n", "k", "k");
    memfs_oid a = COMMIT(&h, OF(&base), "new", "1\n6\n7\n8\n", "k", "k");
    memfs_oid b = COMMIT(&h, OF(&base), "old", "1\n2\n3\n4\n5\n", "k", "k");
    merge_result m = merge(&h, &a, &b);

    assert_paths(&h, &m.commit, "k new old");
    assert_text(&h, &m.commit, "new", "1\n6\n7\n8\n");
    note_for(&m, MERGE_RULE_KEPT_CHANGED, "old");
    merge_result_dispose(&m);
    end(&h);
}

static void test_of_several_likenesses_the_best_is_taken(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "one", "1\n2\n3\n4\n", "two", "1\n2\n3\n9\n", "k", "k");
    memfs_oid a = COMMIT(&h, OF(&base), "x/one", "1\n2\n3\n9\n0\n", "y/two", "1\n2\n3\n4\n0\n",
                         "k", "k");
    memfs_oid b = COMMIT(&h, OF(&base), "one", "b\n1\n2\n3\n4\n", "two", "b\n1\n2\n3\n9\n", "k",
                         "k");
    merge_result m = merge(&h, &a, &b);

    assert_paths(&h, &m.commit, "k x/one y/two"); /* the names mislead */
    assert_text(&h, &m.commit, "x/one", "b\n1\n2\n3\n9\n0\n");
    assert_text(&h, &m.commit, "y/two", "b\n1\n2\n3\n4\n0\n");
    merge_result_dispose(&m);
    end(&h);
}

/* ---- names ---- */

static void test_a_folder_keeps_its_name_against_a_file(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "k", "k");
    memfs_oid a = COMMIT(&h, OF(&base), "k", "k", "notes.md", "a file\n");
    memfs_oid b = COMMIT(&h, OF(&base), "k", "k", "notes.md/x", "in a folder\n", "notes.md-z", "z");
    merge_result m = merge(&h, &a, &b);
    char *name = beside(&h, &a, "notes.md", "notes", ".md");
    char *wanted = mem_printf("k %s notes.md-z notes.md/x", name);

    assert_paths(&h, &m.commit, wanted);
    assert_text(&h, &m.commit, name, "a file\n");
    assert_string_equal(note_for(&m, MERGE_RULE_BESIDE, "notes.md")->detail, name);
    free(wanted);
    free(name);
    merge_result_dispose(&m);
    end(&h);
}

static void test_a_file_that_became_a_folder_while_it_was_edited(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "k", "k", "x", "1\n2\n");
    memfs_oid a = COMMIT(&h, OF(&base), "k", "k", "x", "1\n2\n3\n");
    memfs_oid b = COMMIT(&h, OF(&base), "k", "k", "x/new", "other\n");
    merge_result m = merge(&h, &a, &b);
    char *name = beside(&h, &a, "x", "x", "");
    char *wanted = mem_printf("k %s x/new", name);

    assert_paths(&h, &m.commit, wanted);
    free(wanted);
    free(name);
    merge_result_dispose(&m);
    end(&h);
}

static void test_a_file_moved_into_a_folder_of_its_own_name_takes_its_edit_along(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "k", "k", "x", "1\n2\n");
    memfs_oid a = COMMIT(&h, OF(&base), "k", "k", "x", "1\n2\n3\n");
    memfs_oid b = COMMIT(&h, OF(&base), "k", "k", "x/index", "1\n2\n");
    merge_result m = merge(&h, &a, &b);

    assert_paths(&h, &m.commit, "k x/index");
    assert_text(&h, &m.commit, "x/index", "1\n2\n3\n");
    merge_result_dispose(&m);
    end(&h);
}

static void test_of_twins_one_gets_a_second_name(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "k", "k");
    memfs_oid a = COMMIT(&h, OF(&base), "k", "k", "d/Plan.md", "mine\n");
    memfs_oid b = COMMIT(&h, OF(&base), "k", "k", "d/plan.md", "yours\n");
    merge_result m = merge(&h, &a, &b);
    bool mine_first = merge_order(MEMFS_STR("mine\n"), MEMFS_STR("yours\n")) < 0;
    char *name = mine_first ? beside(&h, &b, "d/plan.md", "d/plan", ".md")
                            : beside(&h, &a, "d/Plan.md", "d/Plan", ".md");

    assert_text(&h, &m.commit, mine_first ? "d/Plan.md" : "d/plan.md",
                mine_first ? "mine\n" : "yours\n");
    assert_text(&h, &m.commit, name, mine_first ? "yours\n" : "mine\n");
    note_for(&m, MERGE_RULE_BESIDE, mine_first ? "d/plan.md" : "d/Plan.md");
    free(name);
    merge_result_dispose(&m);
    end(&h);
}

static void test_of_twin_folders_one_gets_a_second_name(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "k", "k");
    memfs_oid a = COMMIT(&h, OF(&base), "k", "k", "Plan/x", "mine\n");
    memfs_oid b = COMMIT(&h, OF(&base), "k", "k", "plan/y", "yours\n");
    merge_result m = merge(&h, &a, &b);
    memfs_oid ia = id_in(&h, &a, "Plan"), ib = id_in(&h, &b, "plan");
    bool a_first = memcmp(ia.id, ib.id, sizeof(ia.id)) < 0;
    char *name = a_first ? beside(&h, &b, "plan", "plan", "") : beside(&h, &a, "Plan", "Plan", "");
    char *path = mem_printf("%s/%s", name, a_first ? "y" : "x");

    assert_text(&h, &m.commit, path, a_first ? "yours\n" : "mine\n");
    assert_text(&h, &m.commit, a_first ? "Plan/x" : "plan/y", a_first ? "mine\n" : "yours\n");
    free(path);
    free(name);
    merge_result_dispose(&m);
    end(&h);
}

static void test_twins_that_a_side_had_are_let_be(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "k", "k");
    memfs_oid a = COMMIT(&h, OF(&base), "k", "k", "Plan", "1", "plan", "2", "a", "a");
    memfs_oid b = COMMIT(&h, OF(&base), "k", "k", "b", "b");
    merge_result m = merge(&h, &a, &b);

    assert_paths(&h, &m.commit, "Plan a b k plan");
    assert_int_equal(m.n_notes, 0);
    merge_result_dispose(&m);
    end(&h);
}

static void test_a_file_whose_case_was_changed_takes_its_edit_along(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "Plan.md", "1\n2\n3\n", "k", "k");
    memfs_oid a = COMMIT(&h, OF(&base), "plan.md", "1\n2\n3\n", "k", "k");
    memfs_oid b = COMMIT(&h, OF(&base), "Plan.md", "1\n2\n3\n4\n", "k", "k");
    merge_result m = merge(&h, &a, &b);

    assert_paths(&h, &m.commit, "k plan.md");
    assert_text(&h, &m.commit, "plan.md", "1\n2\n3\n4\n");
    merge_result_dispose(&m);
    end(&h);
}

static void test_a_second_name_that_is_taken_is_counted_up(void **state)
{
    history h = begin(*state);
    memfs_oid probe = COMMIT(&h, NONE, "x.md", "a file\n");
    char *name = beside(&h, &probe, "x.md", "x", ".md");
    memfs_oid base = COMMIT(&h, NONE, name, "taken\n");
    memfs_oid a = COMMIT(&h, OF(&base), name, "taken\n", "x.md", "a file\n");
    memfs_oid b = COMMIT(&h, OF(&base), name, "taken\n", "x.md/y", "in a folder\n");
    merge_result m = merge(&h, &a, &b);
    const char *second = note_for(&m, MERGE_RULE_BESIDE, "x.md")->detail;

    assert_string_not_equal(second, name);
    assert_text(&h, &m.commit, second, "a file\n");
    assert_text(&h, &m.commit, name, "taken\n");
    free(name);
    merge_result_dispose(&m);
    end(&h);
}

static void test_a_second_name_that_holds_the_same_already_is_enough(void **state)
{
    history h = begin(*state);
    memfs_oid probe = COMMIT(&h, NONE, "x.md", "a file\n");
    char *name = beside(&h, &probe, "x.md", "x", ".md"), *wanted = mem_printf("%s x.md/y", name);
    memfs_oid base = COMMIT(&h, NONE, name, "a file\n");
    memfs_oid a = COMMIT(&h, OF(&base), name, "a file\n", "x.md", "a file\n");
    memfs_oid b = COMMIT(&h, OF(&base), name, "a file\n", "x.md/y", "in a folder\n");
    merge_result m = merge(&h, &a, &b);

    assert_paths(&h, &m.commit, wanted);
    free(wanted);
    free(name);
    merge_result_dispose(&m);
    end(&h);
}

static void test_second_names_keep_to_the_bounds_of_the_policy(void **state)
{
    history h = begin(*state);
    char folder[1000], file[1100], inside[1200];
    memfs_oid base, a, b;
    merge_result m;

    memset(folder, 'd', sizeof(folder));
    for (size_t i = 200; i < sizeof(folder); i += 200)
        folder[i] = '/';
    folder[sizeof(folder) - 1] = '\0';
    snprintf(file, sizeof(file), "%s/a-file-of-11-name", folder);
    snprintf(inside, sizeof(inside), "%s/x", file);
    base = COMMIT(&h, NONE, "k", "k");
    a = COMMIT(&h, OF(&base), "k", "k", file, "a file\n");
    b = COMMIT(&h, OF(&base), "k", "k", inside, "in a folder\n");
    m = merge(&h, &a, &b);
    assert_true(strlen(note_for(&m, MERGE_RULE_BESIDE, file)->detail) <= 300 + 3);
    {
        _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
        char hex[MEMFS_OID_HEX + 1];
        memfs_str line, rest;
        int n = 0;

        oid_hex(&m.commit, hex);
        git_says(&h, &out, (const char *[]){ "ls-tree", "-r", "--name-only", hex, NULL });
        buf_putc(&out, '\n');
        for (rest = buf_str(&out); str_split(rest, '\n', &line, &rest); n++)
            assert_in_range(line.len, 1, 1024);
        assert_int_equal(n, 3);
    }
    merge_result_dispose(&m);
    end(&h);
}

/* ---- histories ---- */

static void test_unrelated_histories_are_merged_over_nothing(void **state)
{
    history h = begin(*state);
    memfs_oid a = COMMIT(&h, NONE, "x", "same\nmine\n", "only-a", "a\n");
    memfs_oid b = COMMIT(&h, NONE, "x", "same\nyours\n", "d/only-b", "b\n");
    merge_result m = merge(&h, &a, &b);

    assert_true(m.is_unrelated);
    assert_paths(&h, &m.commit, "d/only-b only-a x");
    merge_result_dispose(&m);
    end(&h);
}

static void test_criss_cross_has_a_base_of_both_bases(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "x", "1\n2\n3\n4\n5\n6\n7\n");
    memfs_oid a = COMMIT(&h, OF(&base), "x", "A\n2\n3\n4\n5\n6\n7\n");
    memfs_oid b = COMMIT(&h, OF(&base), "x", "1\n2\n3\n4\n5\n6\nB\n");
    memfs_oid ab = COMMIT(&h, BOTH(&a, &b), "x", "A\n2\n3\n4\n5\n6\nB\n");
    memfs_oid ba = COMMIT(&h, BOTH(&b, &a), "x", "A\n2\n3\nnew\n4\n5\n6\nB\n");
    /* a takes A back, b has a line more: over either base alone, A or B would seem added anew */
    memfs_oid left = COMMIT(&h, OF(&ab), "x", "1\n2\n3\n4\n5\n6\nB\n");
    memfs_oid right = COMMIT(&h, OF(&ba), "x", "A\n2\n3\nnew\n4\n5\n6\n7\n");
    merge_result m = merge(&h, &left, &right);

    assert_text(&h, &m.commit, "x", "1\n2\n3\nnew\n4\n5\n6\n7\n");
    assert_int_equal(m.n_notes, 0);
    merge_result_dispose(&m);
    end(&h);
}

/* Each step has the step before as two bases: without a bound this would be 2^30 merges. */
static void test_a_ladder_of_criss_crosses_ends(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "x", "x\n");
    memfs_oid a = COMMIT(&h, OF(&base), "x", "x\n", "a", "a\n");
    memfs_oid b = COMMIT(&h, OF(&base), "x", "x\n", "b", "b\n");
    merge_result m;

    for (int i = 0; i < 30; i++) {
        char name[16];
        memfs_oid c, d;

        snprintf(name, sizeof(name), "f%d", i);
        c = COMMIT(&h, BOTH(&a, &b), "x", "x\n", "a", "a\n", "b", "b\n", name, "c\n");
        d = COMMIT(&h, BOTH(&b, &a), "x", "x\n", "a", "a\n", "b", "b\n", name, "d\n");
        a = c;
        b = d;
    }
    m = merge(&h, &a, &b);
    assert_paths(&h, &m.commit, "a b f29 x");
    merge_result_dispose(&m);
    end(&h);
}

static void test_a_revert_is_a_merge_with_a_base_of_the_callers(void **state)
{
    history h = begin(*state);
    memfs_oid before = COMMIT(&h, NONE, "x", "1\n2\n3\n", "y", "y\n");
    memfs_oid bad = COMMIT(&h, OF(&before), "x", "1\nbad\n2\n3\n", "y", "y\n");
    memfs_oid now = COMMIT(&h, OF(&bad), "x", "1\nbad\n2\n3\nlater\n", "y", "changed\n");
    memfs_oid base = id_in(&h, &bad, ""), a = id_in(&h, &now, ""), b = id_in(&h, &before, "");
    merge_result m = MERGE_RESULT_INIT;
    memfs_oid tree, wanted;

    wanted = COMMIT(&h, NONE, "x", "1\n2\n3\nlater\n", "y", "changed\n");
    wanted = id_in(&h, &wanted, "");
    assert_ok(h.f, merge_trees(h.r, &base, &a, &b, &tree, &m, &h.f->err));
    assert_true(oid_equal(&tree, &wanted));
    merge_result_dispose(&m);
    assert_ok(h.f, merge_trees(h.r, &base, &b, &a, &tree, NULL, &h.f->err));
    assert_true(oid_equal(&tree, &wanted));
    end(&h);
}

/* ---- cost, and what is not there ---- */

static void lose_object(history *h, const memfs_oid *id)
{
    char hex[MEMFS_OID_HEX + 1], *path;

    oid_hex(id, hex);
    path = mem_printf("%s/objects/%.2s/%s", h->path, hex, hex + 2);
    assert_int_equal(unlink(path), 0);
    free(path);
    repo_close(h->r);
    h->r = NULL;
    assert_ok(h->f, repo_open(h->f->s, AGENT, &h->r, &h->f->err));
}

static void test_folders_that_nobody_or_one_side_changed_are_not_opened(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "d/untouched/x", "x", "a/x", "1", "b/x", "2", "both/k", "k");
    memfs_oid a = COMMIT(&h, OF(&base), "d/untouched/x", "x", "a/x", "1a", "b/x", "2", "both/k",
                         "k", "both/a", "a", "new-a/x", "n");
    memfs_oid b = COMMIT(&h, OF(&base), "d/untouched/x", "x", "a/x", "1", "b/x", "2b", "both/k",
                         "k", "both/b", "b", "new-b/x", "m");
    const memfs_oid gone[] = { id_in(&h, &base, "d"),   id_in(&h, &base, "a"),
                               id_in(&h, &base, "b"),   id_in(&h, &a, "a"),
                               id_in(&h, &b, "b"),      id_in(&h, &a, "new-a"),
                               id_in(&h, &b, "new-b") };
    merge_result m = MERGE_RESULT_INIT, swapped = MERGE_RESULT_INIT;
    memfs_oid got;

    for (size_t i = 0; i < ARRAY_LEN(gone); i++)
        lose_object(&h, &gone[i]);
    assert_ok(h.f, merge_commits(h.r, &a, &b, &m, &h.f->err));
    assert_ok(h.f, merge_commits(h.r, &b, &a, &swapped, &h.f->err));
    assert_true(oid_equal(&m.commit, &swapped.commit));
    got = id_in(&h, &m.commit, "a");
    assert_true(oid_equal(&got, &gone[3]));
    got = id_in(&h, &m.commit, "b");
    assert_true(oid_equal(&got, &gone[4]));
    got = id_in(&h, &m.commit, "new-b");
    assert_true(oid_equal(&got, &gone[6]));
    merge_result_dispose(&m);
    merge_result_dispose(&swapped);
    end(&h);
}

/* A missing parent must not pass for "unrelated": that would merge over nothing. */
static void test_a_history_with_a_hole_is_an_error(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "x", "x"), middle = COMMIT(&h, OF(&base), "x", "m");
    memfs_oid a = COMMIT(&h, OF(&middle), "x", "a"), b = COMMIT(&h, OF(&base), "x", "b");
    memfs_oid nowhere = base;
    merge_result m = MERGE_RESULT_INIT;
    merge_relation relation;

    lose_object(&h, &middle);
    __lsan_disable(); /* libgit2 forgets its queue when it meets the hole */
    assert_code(h.f, MEMFS_ECORRUPT, merge_commits(h.r, &a, &b, &m, &h.f->err));
    __lsan_enable();
    assert_code(h.f, MEMFS_ECORRUPT,
                merge_relate(h.r, &a, &b, &relation, NULL, NULL, &h.f->err));
    nowhere.id[0] ^= 1;
    assert_code(h.f, MEMFS_ECORRUPT, merge_commits(h.r, &a, &nowhere, &m, &h.f->err));
    assert_code(h.f, MEMFS_ECORRUPT, merge_notes_of(h.r, &nowhere, &m, &h.f->err));
    end(&h);
}

/* ---- notes ---- */

static void test_notes_come_back_whatever_the_path(void **state)
{
    static const char *const names[] = { "plain.md", "with blank.md", "a \"quote\".md",
                                         "back\\slash", "\xc3\xa4 umlaut", "tab\there", "\\x22" };
    history h = begin(*state);
    const char *old[2 * ARRAY_LEN(names) + 1] = { NULL }, *one[2 * ARRAY_LEN(names) + 1] = { NULL },
               *two[2 * ARRAY_LEN(names) + 1] = { NULL };
    memfs_oid base, a, b;
    merge_result m;

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        old[2 * i] = one[2 * i] = two[2 * i] = names[i];
        old[2 * i + 1] = "base\n";
        one[2 * i + 1] = "mine\n";
        two[2 * i + 1] = "yours\n";
    }
    base = commit_at(&h, 1, NONE, old);
    a = commit_at(&h, 2, OF(&base), one);
    b = commit_at(&h, 3, OF(&base), two);
    m = merge(&h, &a, &b); /* compares with merge_notes_of */
    assert_int_equal(m.n_notes, ARRAY_LEN(names));
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        note_for(&m, MERGE_RULE_LINES, names[i]);
    merge_result_dispose(&m);
    end(&h);
}

static void test_the_message_holds_a_bounded_number_of_notes(void **state)
{
    enum { N = 130 };
    history h = begin(*state);
    const char *one[2 * N + 1] = { NULL }, *two[2 * N + 1] = { NULL };
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    merge_result m = MERGE_RESULT_INIT, read = MERGE_RESULT_INIT;
    char names[N][16], hex[MEMFS_OID_HEX + 1];
    memfs_oid base, a, b;

    for (size_t i = 0; i < N; i++) {
        snprintf(names[i], sizeof(names[i]), "f%03zu", i);
        one[2 * i] = two[2 * i] = names[i];
        one[2 * i + 1] = "mine\n";
        two[2 * i + 1] = "yours\n";
    }
    base = COMMIT(&h, NONE, "f000", "base\n");
    a = commit_at(&h, 2, OF(&base), one);
    b = commit_at(&h, 3, OF(&base), two);
    assert_ok(h.f, merge_commits(h.r, &a, &b, &m, &h.f->err));
    assert_true(m.n_notes >= N);
    assert_ok(h.f, merge_notes_of(h.r, &m.commit, &read, &h.f->err));
    assert_int_equal(read.n_notes, 100);
    oid_hex(&m.commit, hex);
    git_says(&h, &out, (const char *[]){ "log", "-1", "--format=%B", hex, NULL });
    assert_non_null(strstr(out.ptr, "\nMemfs-Merge: and "));
    merge_result_dispose(&m);
    merge_result_dispose(&read);
    end(&h);
}

static void test_a_message_that_only_looks_like_ours_has_no_notes(void **state)
{
    history h = begin(*state);
    memfs_oid base = COMMIT(&h, NONE, "x", "x");
    merge_result m = MERGE_RESULT_INIT;

    assert_ok(h.f, merge_notes_of(h.r, &base, &m, &h.f->err));
    assert_false(m.is_merge);
    assert_int_equal(m.n_notes, 0);
    end(&h);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_merge_commit_is_made_of_its_parents_alone),
        TEST(test_a_commit_that_contains_the_other_is_the_merge),
        TEST(test_a_merge_contains_both_and_merging_it_again_changes_nothing),
        TEST(test_how_two_commits_stand_to_each_other),
        TEST(test_how_commits_stand_does_not_hang_on_their_dates),
        TEST(test_what_one_side_changed_is_taken),
        TEST(test_lines_apart_are_merged_and_lines_that_met_are_both_kept),
        TEST(test_what_one_side_changed_and_the_other_deleted_stays),
        TEST(test_what_both_added_is_merged_over_nothing),
        TEST(test_what_is_no_text_is_kept_twice),
        TEST(test_the_mode_follows_the_side_that_changed_it),
        TEST(test_links_are_kept_twice_and_never_read_as_text),
        TEST(test_an_edit_follows_a_rename),
        TEST(test_an_edit_follows_into_a_folder_that_only_one_side_touched),
        TEST(test_edits_follow_a_whole_folder_that_moved),
        TEST(test_a_file_that_both_renamed_is_one_file),
        TEST(test_a_file_that_both_renamed_alike_has_its_base),
        TEST(test_a_rename_onto_a_name_that_is_taken_is_none),
        TEST(test_what_shares_too_little_did_not_move),
        TEST(test_of_several_likenesses_the_best_is_taken),
        TEST(test_a_folder_keeps_its_name_against_a_file),
        TEST(test_a_file_that_became_a_folder_while_it_was_edited),
        TEST(test_a_file_moved_into_a_folder_of_its_own_name_takes_its_edit_along),
        TEST(test_of_twins_one_gets_a_second_name),
        TEST(test_of_twin_folders_one_gets_a_second_name),
        TEST(test_twins_that_a_side_had_are_let_be),
        TEST(test_a_file_whose_case_was_changed_takes_its_edit_along),
        TEST(test_a_second_name_that_is_taken_is_counted_up),
        TEST(test_a_second_name_that_holds_the_same_already_is_enough),
        TEST(test_second_names_keep_to_the_bounds_of_the_policy),
        TEST(test_unrelated_histories_are_merged_over_nothing),
        TEST(test_criss_cross_has_a_base_of_both_bases),
        TEST(test_a_ladder_of_criss_crosses_ends),
        TEST(test_a_revert_is_a_merge_with_a_base_of_the_callers),
        TEST(test_folders_that_nobody_or_one_side_changed_are_not_opened),
        TEST(test_a_history_with_a_hole_is_an_error),
        TEST(test_notes_come_back_whatever_the_path),
        TEST(test_the_message_holds_a_bounded_number_of_notes),
        TEST(test_a_message_that_only_looks_like_ours_has_no_notes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
