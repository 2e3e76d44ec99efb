/* The merge that never asks, for one file (design 7). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/hash.h"
#include "merge_support.h"

#define FM(yaml) "---\n" yaml "---\n"

/* ---- chance ---- */

typedef struct chance {
    uint64_t state;
} chance;

static uint64_t roll(chance *c) /* splitmix64 */
{
    uint64_t z = c->state += 0x9E3779B97F4A7C15u;

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static size_t below(chance *c, size_t n)
{
    return (size_t)(roll(c) % n);
}

static bool one_in(chance *c, size_t n)
{
    return below(c, n) == 0;
}

/* ---- texts of lines ---- */

#define MAX_LINES 64

typedef enum kind {
    REPEATED, /* a handful of lines, over and over */
    PROSE,    /* mostly different lines, blank lines between */
    LISTS,    /* headings and list items */
    N_KINDS,
} kind;

typedef struct draft {
    char *lines[MAX_LINES];
    size_t n;
    kind kind;
    bool is_crlf, ends_in_newline;
} draft;

static const char *const FEW[] = { "a", "b", "", "- x", "---", "```", "\xC3\xA4" };

static char *some_line(chance *c, kind k)
{
    switch (k) {
    case REPEATED: return mem_strdup(FEW[below(c, ARRAY_LEN(FEW))]);
    case LISTS:
        if (one_in(c, 6))
            return mem_strdup(one_in(c, 2) ? "" : "## Notes");
        return mem_printf("%s item %zu", one_in(c, 4) ? "*" : "-", below(c, 12));
    default:
        if (one_in(c, 4))
            return mem_strdup("");
        return mem_printf("%s %zu \xE2\x82\xAC", one_in(c, 2) ? "Line" : "Text", below(c, 1000));
    }
}

static void insert_line(draft *d, size_t at, char *line)
{
    if (d->n == MAX_LINES) {
        free(line);
        return;
    }
    memmove(&d->lines[at + 1], &d->lines[at], (d->n - at) * sizeof(d->lines[0]));
    d->lines[at] = line;
    d->n++;
}

static char *remove_line(draft *d, size_t at)
{
    char *line = d->lines[at];

    d->n--;
    memmove(&d->lines[at], &d->lines[at + 1], (d->n - at) * sizeof(d->lines[0]));
    return line;
}

static draft some_draft(chance *c, size_t max)
{
    draft d = { .n = 0,
                .kind = (kind)below(c, N_KINDS),
                .is_crlf = one_in(c, 8),
                .ends_in_newline = !one_in(c, 5) };

    for (size_t n = below(c, max); d.n < n;)
        insert_line(&d, d.n, some_line(c, d.kind));
    return d;
}

static void dispose_draft(draft *d)
{
    while (d->n > 0)
        free(remove_line(d, d->n - 1));
}

static draft copy_of(const draft *d)
{
    draft copy = *d;

    for (size_t i = 0; i < d->n; i++)
        copy.lines[i] = mem_strdup(d->lines[i]);
    return copy;
}

static void edit_line(chance *c, draft *d)
{
    size_t at = d->n > 0 ? below(c, d->n) : 0;

    switch (d->n > 0 ? below(c, 6) : 0) {
    case 0: insert_line(d, one_in(c, 3) ? d->n : at, some_line(c, d->kind)); break;
    case 1: free(remove_line(d, at)); break;
    case 2:
    case 3:
        free(remove_line(d, at));
        insert_line(d, at, some_line(c, d->kind));
        break;
    case 4: insert_line(d, at, mem_strdup(d->lines[below(c, d->n)])); break;
    default: {
        char *line = remove_line(d, at);

        insert_line(d, below(c, d->n + 1), line);
    }
    }
}

static draft edited(chance *c, const draft *from)
{
    draft d = copy_of(from);

    for (size_t n = below(c, 6); n > 0; n--)
        edit_line(c, &d);
    if (one_in(c, 12))
        d.ends_in_newline = !d.ends_in_newline;
    if (one_in(c, 30))
        d.is_crlf = !d.is_crlf;
    return d;
}

static void write_draft(const draft *d, memfs_buf *out)
{
    for (size_t i = 0; i < d->n; i++) {
        buf_puts(out, d->lines[i]);
        if (i + 1 < d->n || d->ends_in_newline)
            buf_puts(out, d->is_crlf ? "\r\n" : "\n");
    }
}

/* ---- front matter ---- */

static const char *const KEYS[] = {
    "description", "limit", "tags", "metadata", "\"quo ted\"", "on"
};

static char *some_entry(chance *c)
{
    const char *key = KEYS[below(c, one_in(c, 5) ? ARRAY_LEN(KEYS) : 4)];

    switch (below(c, 12)) {
    case 0: return mem_printf("%s:\n- a%zu\n- b", key, below(c, 4));
    case 1: return mem_printf("%s: |\n  text %zu\n\n  more", key, below(c, 4));
    case 2: return mem_printf("# about %zu\n%s: %zu", below(c, 4), key, below(c, 4));
    case 3: return mem_printf("%s:\n  deep:\n    er: %zu", key, below(c, 4));
    case 4: return mem_printf("%s: \"two\n  lines %zu\"", key, below(c, 4));
    case 5:
        switch (below(c, 8)) {
        case 0: return mem_printf("%s: &anchor x%zu", key, below(c, 3));
        case 1: return mem_printf("%s: *anchor", key);
        case 2: return mem_printf("%s: [broken", key);
        case 3: return mem_printf("# only a comment %zu", below(c, 3));
        case 4: return mem_printf("%s: \"to the\nmargin: %zu\"", key, below(c, 3));
        case 5: return mem_strdup("");
        case 6: return mem_strdup("{flow: 1}");
        default: return mem_strdup("---");
        }
    default: return mem_printf("%s: value %zu", key, below(c, 6));
    }
}

/* Entries are "lines" of a draft here. */
static draft some_front(chance *c)
{
    draft d = { .kind = N_KINDS, .is_crlf = one_in(c, 10), .ends_in_newline = !one_in(c, 15) };

    for (size_t n = 1 + below(c, 5); d.n < n;)
        insert_line(&d, d.n, some_entry(c));
    return d;
}

static draft edited_front(chance *c, const draft *from)
{
    draft d = copy_of(from);

    for (size_t n = below(c, 4); n > 0; n--) {
        size_t at = d.n > 0 ? below(c, d.n) : 0;

        if (d.n == 0 || one_in(c, 3)) {
            insert_line(&d, at, some_entry(c));
        } else if (one_in(c, 2)) {
            free(remove_line(&d, at));
            if (!one_in(c, 3))
                insert_line(&d, at, some_entry(c));
        } else {
            char *line = remove_line(&d, at);

            insert_line(&d, below(c, d.n + 1), line);
        }
    }
    return d;
}

static void write_front(const draft *d, memfs_buf *out)
{
    size_t from = out->len, i = 0;

    buf_puts(out, "---\n");
    for (; i < d->n; i++)
        buf_printf(out, "%s\n", d->lines[i]);
    if (d->ends_in_newline) /* else it is never closed */
        buf_puts(out, "---\n");
    if (d->is_crlf) {
        _cleanup_(buf_dispose) memfs_buf lf = MEMFS_BUF_INIT(SUPPORT_MAX);

        buf_add(&lf, out->ptr + from, out->len - from);
        buf_truncate(out, from);
        for (i = 0; i < lf.len; i++) {
            if (lf.ptr[i] == '\n')
                buf_putc(out, '\r');
            buf_putc(out, lf.ptr[i]);
        }
    }
}

typedef struct trio {
    memfs_buf base, a, b;
} trio;
#define TRIO_INIT                                                                                  \
    {                                                                                              \
        MEMFS_BUF_INIT(SUPPORT_MAX), MEMFS_BUF_INIT(SUPPORT_MAX), MEMFS_BUF_INIT(SUPPORT_MAX)      \
    }

static void trio_dispose(trio *t)
{
    buf_dispose(&t->base);
    buf_dispose(&t->a);
    buf_dispose(&t->b);
}

static void put_fronts(chance *c, trio *t)
{
    draft base = some_front(c), a = edited_front(c, &base), b = edited_front(c, &base);

    if (!one_in(c, 6))
        write_front(&base, &t->base);
    if (!one_in(c, 8))
        write_front(&a, &t->a);
    if (!one_in(c, 8))
        write_front(&b, &t->b);
    dispose_draft(&base);
    dispose_draft(&a);
    dispose_draft(&b);
}

static void some_trio(chance *c, bool with_front, size_t max_lines, trio *t)
{
    draft base = some_draft(c, max_lines), a = edited(c, &base), b = edited(c, &base);

    if (with_front)
        put_fronts(c, t);
    write_draft(&base, &t->base);
    write_draft(&a, &t->a);
    write_draft(&b, &t->b);
    dispose_draft(&base);
    dispose_draft(&a);
    dispose_draft(&b);
}

static void print_trio(const trio *t, uint64_t seed)
{
    printf("seed %llu\n=== base\n%s\n=== a\n%s\n=== b\n%s\n", (unsigned long long)seed, t->base.ptr,
           t->a.ptr, t->b.ptr);
}

static void check_many(uint64_t seed, size_t n, bool with_front, size_t max_lines, bool with_base)
{
    for (uint64_t i = 0; i < n; i++) {
        _cleanup_(trio_dispose) trio t = TRIO_INIT;
        chance c = { seed + i };
        const char *broken;
        memfs_str base;

        some_trio(&c, with_front, max_lines, &t);
        base = buf_str(&t.base);
        broken = merge_broken_promise(with_base ? &base : NULL, buf_str(&t.a), buf_str(&t.b));
        if (broken != NULL) {
            print_trio(&t, seed + i);
            fail_msg("%s", broken);
        }
    }
}

static void the_promises_hold_for_short_texts(void **state)
{
    (void)state;
    check_many(1000000, 8000, false, 6, true);
}

static void the_promises_hold_for_texts(void **state)
{
    (void)state;
    check_many(2000000, 2000, false, 40, true);
}

static void the_promises_hold_with_front_matter(void **state)
{
    (void)state;
    check_many(3000000, 4000, true, 8, true);
}

static void the_promises_hold_without_a_base(void **state)
{
    (void)state;
    check_many(4000000, 1500, true, 12, false);
    check_many(5000000, 1500, false, 12, false);
}

/* Any bytes, also ones that are no text. */
static void the_promises_hold_for_any_bytes(void **state)
{
    static const char PIECES[][8] = { "-",    "--", "---", "\n",      "\r",   "\r\n",
                                      "k: v", ":",  " ",   "#",       "\xC3", "\xA4",
                                      "\xFF", "'",  "\"",  "\n---\n", "a" };

    (void)state;
    for (uint64_t seed = 0; seed < 6000; seed++) {
        _cleanup_(trio_dispose) trio t = TRIO_INIT;
        memfs_buf *texts[] = { &t.base, &t.a, &t.b };
        chance c = { 6000000 + seed };
        const char *broken;
        memfs_str base;

        for (size_t i = 0; i < 3; i++) {
            if (one_in(&c, 2))
                buf_puts(texts[i], "---\n");
            for (size_t n = below(&c, 12); n > 0; n--)
                buf_puts(texts[i], PIECES[below(&c, one_in(&c, 30) ? 17 : 10)]);
            if (one_in(&c, 40))
                buf_putc(texts[i], '\0');
        }
        base = buf_str(&t.base);
        broken = merge_broken_promise(one_in(&c, 5) ? NULL : &base, buf_str(&t.a), buf_str(&t.b));
        if (broken != NULL) {
            print_trio(&t, 6000000 + seed);
            fail_msg("%s", broken);
        }
    }
}

/* ---- a line that one side deleted and the other left alone ---- */

static void what_one_side_deleted_is_gone(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 2000; seed++) {
        _cleanup_(trio_dispose) trio t = TRIO_INIT;
        _cleanup_(merge_said_dispose) merge_said said = MERGE_SAID_INIT;
        chance c = { 7000000 + seed };
        draft base = some_draft(&c, 20), a, b;
        memfs_str rest, line, base_text;

        base.is_crlf = false;
        base.kind = base.kind == REPEATED ? LISTS : base.kind;
        a = edited(&c, &base);
        b = copy_of(&base);
        a.is_crlf = b.is_crlf = false;
        for (size_t n = below(&c, 5); n > 0; n--)
            insert_line(&b, below(&c, b.n + 1), some_line(&c, base.kind));
        write_draft(&base, &t.base);
        write_draft(&a, &t.a);
        write_draft(&b, &t.b);
        base_text = buf_str(&t.base);
        merge_say(&base_text, buf_str(&t.a), buf_str(&t.b), &said);
        rest = base_text;
        while (merge_next_line(&rest, &line))
            if (merge_count_line(base_text, line) == 1 &&
                merge_count_line(buf_str(&t.a), line) == 0 &&
                merge_count_line(buf_str(&t.b), line) == 1 &&
                merge_count_line(buf_str(&said.text), line) != 0) {
                print_trio(&t, 7000000 + seed);
                fail_msg("'%.*s' came back", (int)line.len, line.ptr);
            }
        dispose_draft(&base);
        dispose_draft(&a);
        dispose_draft(&b);
    }
}

/* ---- a fleet ---- */

enum { MACHINES = 6 };

typedef struct fleet {
    memfs_buf
        base[MACHINES]; /* what a machine had in common with the others when it last met them */
    memfs_buf text[MACHINES];
    memfs_buf hub;
    uint64_t seed;
    size_t n_written;
} fleet;

static void set_text(memfs_buf *to, memfs_str text)
{
    _cleanup_(mem_freep) char *copy = mem_strndup(text.ptr, text.len);

    buf_clear(to);
    buf_add(to, copy, text.len);
}

/* Adds a line of its own to a machine's text, and may take another away. */
static void work_on(fleet *f, chance *c, size_t i, bool may_delete)
{
    draft d = { .kind = PROSE, .ends_in_newline = true };
    memfs_str rest = buf_str(&f->text[i]), line;

    while (merge_next_line(&rest, &line) && d.n < MAX_LINES - 1)
        insert_line(&d, d.n, mem_strndup(line.ptr, line.len));
    if (may_delete && d.n > 0 && one_in(c, 2)) {
        size_t at = below(c, d.n);

        if (!str_starts_with(str_of(d.lines[at]), MEMFS_STR("- fact")))
            free(remove_line(&d, at));
    }
    insert_line(&d, one_in(c, 2) ? d.n : below(c, d.n + 1),
                mem_printf("- fact %zu", f->n_written++));
    buf_clear(&f->text[i]);
    write_draft(&d, &f->text[i]);
    dispose_draft(&d);
}

static void fleet_init(fleet *f, chance *c)
{
    draft base = some_draft(c, 12);

    base.is_crlf = false;
    base.ends_in_newline = true;
    f->hub = (memfs_buf)MEMFS_BUF_INIT(SUPPORT_MAX);
    write_draft(&base, &f->hub);
    for (size_t i = 0; i < MACHINES; i++) {
        f->base[i] = f->text[i] = (memfs_buf)MEMFS_BUF_INIT(SUPPORT_MAX);
        buf_add_str(&f->base[i], buf_str(&f->hub));
        buf_add_str(&f->text[i], buf_str(&f->hub));
    }
    dispose_draft(&base);
}

static void fleet_dispose(fleet *f)
{
    for (size_t i = 0; i < MACHINES; i++) {
        buf_dispose(&f->base[i]);
        buf_dispose(&f->text[i]);
    }
    buf_dispose(&f->hub);
}

/* How many facts are in the text not once; none at all is a failure. */
static size_t count_doubled(const fleet *f, memfs_str text)
{
    size_t n_doubled = 0;

    for (size_t i = 0; i < f->n_written; i++) {
        _cleanup_(mem_freep) char *line = mem_printf("- fact %zu", i);
        size_t n = merge_count_line(text, str_of(line));

        if (n == 0)
            fail_msg("seed %llu: '%s' is lost in:\n%s", (unsigned long long)f->seed, line,
                     text.ptr);
        n_doubled += n > 1;
    }
    return n_doubled;
}

/* Each works, and now and then brings its work to the hub and takes the hub's home. */
static void a_fleet_with_a_hub_keeps_each_line_once(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        fleet f = { .seed = seed };
        chance c = { 8000000 + seed };

        fleet_init(&f, &c);
        for (size_t step = 0; step < 30; step++) {
            _cleanup_(merge_said_dispose) merge_said said = MERGE_SAID_INIT;
            size_t i = below(&c, MACHINES);
            memfs_str base = buf_str(&f.base[i]);

            if (step < 24)
                work_on(&f, &c, i, true);
            else
                i = step - 24; /* at the end all meet */
            base = buf_str(&f.base[i]);
            if (step < 24 && one_in(&c, 2))
                continue;
            merge_say(&base, buf_str(&f.text[i]), buf_str(&f.hub), &said);
            set_text(&f.hub, buf_str(&said.text));
            set_text(&f.text[i], buf_str(&said.text));
            set_text(&f.base[i], buf_str(&said.text));
        }
        assert_int_equal(count_doubled(&f, buf_str(&f.hub)), 0);
        fleet_dispose(&f);
    }
}

static bool meet(fleet *f, size_t i, size_t j)
{
    _cleanup_(merge_said_dispose) merge_said said = MERGE_SAID_INIT;
    memfs_str base = buf_str(&f->base[0]), r;
    bool was_same;

    merge_say(&base, buf_str(&f->text[i]), buf_str(&f->text[j]), &said);
    r = buf_str(&said.text);
    was_same = str_equal(r, buf_str(&f->text[i])) && str_equal(r, buf_str(&f->text[j]));
    set_text(&f->text[i], r);
    set_text(&f->text[j], r);
    return was_same;
}

/*
 * The worst case: no hub, and machines that meet in pairs by chance with nothing but the oldest
 * base. They must come to rest, with all lines.  Here a line can come out twice, where one has it
 * above and the other below a third; that it stays rare is all that can be asked.
 */
static void a_fleet_without_a_hub_comes_to_rest(void **state)
{
    size_t n_doubled = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        fleet f = { .seed = seed };
        chance c = { 8500000 + seed };
        size_t meetings = 0;

        fleet_init(&f, &c);
        for (size_t i = 0; i < MACHINES; i++)
            work_on(&f, &c, i, true);
        for (size_t same = 0; same < 100; meetings++) {
            size_t i = below(&c, MACHINES), j = (i + 1 + below(&c, MACHINES - 1)) % MACHINES;

            same = meet(&f, i, j) ? same + 1 : 0;
            if (meetings == 3000)
                fail_msg("seed %llu does not come to rest", (unsigned long long)seed);
        }
        n_doubled += count_doubled(&f, buf_str(&f.text[0]));
        fleet_dispose(&f);
    }
    assert_in_range(n_doubled, 0, 100 * MACHINES / 100);
}

/* ---- the table of the design ---- */

typedef struct row {
    const char *base, *a, *b; /* base NULL: added on both sides */
    merge_outcome outcome;
    const char *text;  /* either of two, where the blob ids decide which is first */
    const char *other; /* NULL: only the one */
} row;

static void rows_follow_the_table(void **state)
{
    static const row rows[] = {
        { "x\n", "x\n", "y\n", MERGE_CLEAN, "y\n", NULL },
        { "x\n", "y\n", "y\n", MERGE_CLEAN, "y\n", NULL },
        { "x\n", "", "x\n", MERGE_CLEAN, "", NULL },
        /* lines apart */
        { "1\n2\n3\n", "0\n1\n2\n3\n", "1\n2\n3\n4\n", MERGE_CLEAN, "0\n1\n2\n3\n4\n", NULL },
        { "1\n2\n3\n", "1\n3\n", "1\n2\n3\n4\n", MERGE_CLEAN, "1\n3\n4\n", NULL },
        /* lines that touch keep their order */
        { "1\n2\n", "one\n2\n", "1\ntwo\n", MERGE_BY_RULE, "one\ntwo\n", NULL },
        /* the same line */
        { "1\n", "one\n", "eins\n", MERGE_BY_RULE, "one\neins\n", "eins\none\n" },
        { "1\n", "one\nsame\n", "same\neins\n", MERGE_BY_RULE, "one\nsame\neins\n", NULL },
        { "- a\n", "- a\n- x\n- y\n", "- a\n- y\n- z\n", MERGE_BY_RULE, "- a\n- x\n- y\n- z\n",
          NULL },
        { "- a\n", "- a\n- x\n- y\n", "- a\n- y\n- x\n", MERGE_BY_RULE, "- a\n- x\n- y\n",
          "- a\n- y\n- x\n" },
        { "- a\n", "- a\n- x\n- y\n- z\n", "- a\n- z\n- x\n", MERGE_BY_RULE, "- a\n- x\n- y\n- z\n",
          NULL },
        /* changed here, deleted there */
        { "1\n2\n3\n", "1\n3\n", "1\nzwei\n3\n", MERGE_BY_RULE, "1\nzwei\n3\n", NULL },
        /* a log that both append to */
        { "log\n", "log\n\n## day\n- a\n", "log\n\n## day\n- b\n", MERGE_BY_RULE,
          "log\n\n## day\n- a\n- b\n", "log\n\n## day\n- b\n- a\n" },
        /* no newline at the end */
        { "1\n2", "0\n1\n2", "1\n2\n", MERGE_CLEAN, "0\n1\n2\n", NULL },
        { "1", "1\n2", "1\n3", MERGE_BY_RULE, "1\n2\n3", "1\n3\n2" },
        /* added on both sides */
        { NULL, "1\n2\n", "1\n3\n", MERGE_BY_RULE, "1\n2\n3\n", "1\n3\n2\n" },
        { NULL, "1\n", "", MERGE_BY_RULE, "1\n", NULL },
        /* front matter */
        { FM("description: x\n") "t\n", FM("description: y\n") "t\n",
          FM("description: x\nlimit: 5\n") "t\n", MERGE_CLEAN,
          FM("description: y\nlimit: 5\n") "t\n", NULL },
        { FM("description: x\nlimit: 5\n") "t\n", FM("description: x\n") "t\n",
          FM("limit: 5\ndescription: y\n") "t\nu\n", MERGE_CLEAN, FM("description: y\n") "t\nu\n",
          NULL },
        { FM("d: x\n"), FM("d: y\n"), FM("d: z\n"), MERGE_BY_RULE, FM("d: y\n"), FM("d: z\n") },
        { "t\n", FM("d: x\n") "t\n", FM("e: y\n") "t\nu\n", MERGE_CLEAN,
          FM("d: x\ne: y\n") "t\nu\n", FM("e: y\nd: x\n") "t\nu\n" },
        { "t\n", FM("d: x\n") "t\n", "t\nu\n", MERGE_CLEAN, FM("d: x\n") "t\nu\n", NULL },
        { FM("d: x\n") "t\n", "t\n", FM("d: x\n") "t\nu\n", MERGE_CLEAN, "t\nu\n", NULL },
        { FM("d: x\n") "t\n", "t\n", FM("d: y\n") "t\n", MERGE_BY_RULE, FM("d: y\n") "t\n", NULL },
        { FM("d: x\n") "t\n", FM("d: [\n") "t\n", FM("d: y\n") "t\n", MERGE_BY_RULE,
          FM("d: y\n") FM("d: [\n") "t\n", NULL }, /* what cannot be read is text */
        { FM("d: x\n") "t\n", "---\r\nd: x\r\n---\r\nt\n", FM("d: x\ne: 1\n") "t\n", MERGE_CLEAN,
          "---\r\nd: x\r\ne: 1\n---\r\nt\n", NULL },
        /* what is no front matter must not become some */
        { "x\ny\n---\nfoo\n---\n", "y\n---\nfoo\n---\n", "x\n---\nfoo\n---\n", MERGE_BY_RULE,
          "<!-- -->\n---\nfoo\n---\n", NULL },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        _cleanup_(merge_said_dispose) merge_said said = MERGE_SAID_INIT;
        memfs_str base = str_of(rows[i].base);

        merge_say(rows[i].base != NULL ? &base : NULL, str_of(rows[i].a), str_of(rows[i].b), &said);
        if (said.outcome != rows[i].outcome ||
            (strcmp(said.text.ptr, rows[i].text) != 0 &&
             (rows[i].other == NULL || strcmp(said.text.ptr, rows[i].other) != 0)))
            fail_msg("row %zu: outcome %d\n%s%s", i, said.outcome, said.text.ptr, said.notes.ptr);
    }
}

static void notes_say_where_and_what(void **state)
{
    _cleanup_(merge_said_dispose) merge_said said = MERGE_SAID_INIT;
    memfs_str base = MEMFS_STR(FM("d: x\n") "1\n2\n"), y = MEMFS_STR("d: y\n"),
              z = MEMFS_STR("d: z\n");
    const char *lost = merge_order(y, z) < 0 ? "key d: z\nlines 5\n" : "key d: y\nlines 5\n";

    (void)state;
    merge_say(&base, MEMFS_STR(FM("d: y\n") "1\ntwo\n"), MEMFS_STR(FM("d: z\n") "1\nzwei\n"),
              &said);
    assert_string_equal(said.notes.ptr, lost);
    merge_say(NULL, MEMFS_STR("1\n"), MEMFS_STR("2\n"), &said);
    assert_string_equal(said.notes.ptr, "added-twice \n");
}

static void binaries_are_two_files(void **state)
{
    _cleanup_(merge_said_dispose) merge_said said = MERGE_SAID_INIT;
    memfs_str base = MEMFS_STR("x"), nul = MEMFS_STR("a\0b"), latin = MEMFS_STR("\xE4");

    (void)state;
    merge_say(&base, nul, MEMFS_STR("y"), &said);
    assert_int_equal(said.outcome, MERGE_TWO_FILES);
    merge_say(NULL, MEMFS_STR("y"), latin, &said);
    assert_int_equal(said.outcome, MERGE_TWO_FILES);
    merge_say(&base, nul, base, &said); /* only one side changed */
    assert_int_equal(said.outcome, MERGE_CLEAN);
    assert_int_equal(said.text.len, 3);
    merge_say(&latin, MEMFS_STR("y"), MEMFS_STR("z"), &said); /* the base is none of ours */
    assert_int_equal(said.outcome, MERGE_BY_RULE);
}

static void the_order_is_that_of_git_blob_ids(void **state)
{
    char hex[MEMFS_OID_HEX + 1];
    memfs_oid id;

    (void)state;
    hash_git_blob(MEMFS_STR(""), &id);
    oid_hex(&id, hex);
    assert_string_equal(hex, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    hash_git_blob(MEMFS_STR("hello\n"), &id);
    oid_hex(&id, hex);
    assert_string_equal(hex, "ce013625030ba8dba906f756967f9e9ca394464a");
    assert_int_equal(merge_order(MEMFS_STR(""), MEMFS_STR("hello\n")), 1);
    assert_int_equal(merge_order(MEMFS_STR("hello\n"), MEMFS_STR("")), -1);
    assert_int_equal(merge_order(MEMFS_STR("hello\n"), MEMFS_STR("hello\n")), 0);
}

static void second_names_fit(void **state)
{
    static const char *const rows[][2] = {
        { "a/b.md", "a/b.abcdef0.md" },
        { "b", "b.abcdef0" },
        { "a.d/b", "a.d/b.abcdef0" },
        { ".hidden", ".hidden.abcdef0" },
        { "x/.a.tar.gz", "x/.a.tar.abcdef0.gz" },
        { "b.", "b.abcdef0." },
    };
    _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(4096);
    _cleanup_(mem_freep) char *cut = NULL;
    memfs_oid id;

    (void)state;
    assert_true(oid_parse(MEMFS_STR("abcdef0123456789abcdef0123456789abcdef01"), &id));
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        _cleanup_(mem_freep) char *name = merge_second_name(str_of(rows[i][0]), &id);

        assert_string_equal(name, rows[i][1]);
    }
    buf_puts(&path, "dir/");
    for (size_t i = 0; i < 126; i++)
        buf_puts(&path, "\xC3\xA4");
    buf_puts(&path, ".md");
    cut = merge_second_name(buf_str(&path), &id);
    assert_true(strlen(cut + 4) <= 255 && strlen(cut + 4) > 250);
    assert_true(merge_is_text(str_of(cut)));
    assert_string_equal(cut + strlen(cut) - 11, ".abcdef0.md");
}

/* ---- large texts ---- */

static void put_large(chance *c, size_t n_lines, size_t n_different, memfs_buf *out)
{
    for (size_t i = 0; i < n_lines; i++)
        buf_printf(out, "line %zu\n", n_different > 0 ? below(c, n_different) : i);
}

/* Each is a case that takes minutes where the work is quadratic. */
static void large_texts_are_merged(void **state)
{
    static const size_t DIFFERENT[] = { 1, 2, 50, 1000000 };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(DIFFERENT); i++) {
        _cleanup_(trio_dispose) trio t = TRIO_INIT;
        _cleanup_(merge_said_dispose) merge_said said = MERGE_SAID_INIT;
        chance c = { 9000000 + i };
        memfs_str base;

        put_large(&c, 200000, DIFFERENT[i], &t.base);
        put_large(&c, 200000, DIFFERENT[i], &t.a);
        put_large(&c, 199000, DIFFERENT[i], &t.b);
        base = buf_str(&t.base);
        merge_say(&base, buf_str(&t.a), buf_str(&t.b), &said);
        assert_int_not_equal(said.outcome, MERGE_TWO_FILES);
        assert_true(said.text.len > 0 && said.text.len <= t.a.len + t.b.len + 65536);
    }
}

static void few_changes_in_a_large_text_stay_few(void **state)
{
    _cleanup_(trio_dispose) trio t = TRIO_INIT;
    _cleanup_(merge_said_dispose) merge_said said = MERGE_SAID_INIT;
    _cleanup_(buf_dispose) memfs_buf expected = MEMFS_BUF_INIT(SUPPORT_MAX);
    chance c = { 1 };
    memfs_str base;

    (void)state;
    put_large(&c, 200000, 0, &t.base);
    buf_puts(&t.a, "first\n");
    buf_add_str(&t.a, buf_str(&t.base));
    buf_add_str(&t.b, buf_str(&t.base));
    buf_puts(&t.b, "last\n");
    base = buf_str(&t.base);
    merge_say(&base, buf_str(&t.a), buf_str(&t.b), &said);
    assert_int_equal(said.outcome, MERGE_CLEAN);
    buf_puts(&expected, "first\n");
    buf_add_str(&expected, base);
    buf_puts(&expected, "last\n");
    assert_true(str_equal(buf_str(&said.text), buf_str(&expected)));
}

static void too_many_lines_are_two_files(void **state)
{
    _cleanup_(merge_said_dispose) merge_said said = MERGE_SAID_INIT;
    size_t n = MERGE_MAX_TEXT_LINES + 1;
    _cleanup_(mem_freep) char *newlines = mem_alloc(n);
    memfs_str base = MEMFS_STR("x\n");

    (void)state;
    memset(newlines, '\n', n);
    merge_say(&base, str_make(newlines, n), MEMFS_STR("y\n"), &said);
    assert_int_equal(said.outcome, MERGE_TWO_FILES);
    merge_say(&base, str_make(newlines, n - 1), MEMFS_STR("y\n"), &said);
    assert_int_equal(said.outcome, MERGE_BY_RULE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_follow_the_table),
        cmocka_unit_test(notes_say_where_and_what),
        cmocka_unit_test(binaries_are_two_files),
        cmocka_unit_test(the_order_is_that_of_git_blob_ids),
        cmocka_unit_test(second_names_fit),
        cmocka_unit_test(the_promises_hold_for_short_texts),
        cmocka_unit_test(the_promises_hold_for_texts),
        cmocka_unit_test(the_promises_hold_with_front_matter),
        cmocka_unit_test(the_promises_hold_without_a_base),
        cmocka_unit_test(the_promises_hold_for_any_bytes),
        cmocka_unit_test(what_one_side_deleted_is_gone),
        cmocka_unit_test(a_fleet_with_a_hub_keeps_each_line_once),
        cmocka_unit_test(a_fleet_without_a_hub_comes_to_rest),
        cmocka_unit_test(large_texts_are_merged),
        cmocka_unit_test(few_changes_in_a_large_text_stay_few),
        cmocka_unit_test(too_many_lines_are_two_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
