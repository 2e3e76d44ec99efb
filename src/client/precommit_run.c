#include "client/precommit_run.h"

#include "base/escape.h"
#include "base/fs.h"
#include "base/mem.h"
#include "memory/layout.h"
#include "memory/precommit.h"
#include "store/staged.h"

#include <stdlib.h>

/*
 * Gathers what the rules look at, asks them, and says each offence in a way that an agent can act
 * on: the path, the rule, and at the end what a good file looks like.
 *
 * Which rules: memory/precommit for the files that this commit changes, or memory/layout for all
 * tracked files when the client has put the memory into its second layout (<common git
 * dir>/letta-memory-layout-policy).  A tracked .memfs.config.json adds its limits in either, and
 * only changes with LETTA_MEMORY_CONSTRAINTS_UPDATE=1.
 */

#define MAX_TEXT (10u << 20) /* as a push: nothing larger could leave this machine anyway */
#define CONFIG_FILE MEMFS_STR(".memfs.config.json")
#define ROOT_MARKER MEMFS_STR("MEMORY.md")
#define POLICY_FILE "letta-memory-layout-policy"

static const char EXAMPLE[] = "example of a file that is taken:\n"
                              "  ---\n"
                              "  description: What this file is about, in one line\n"
                              "  ---\n"
                              "  The text of the memory.\n";
static const char LAYOUT_EXAMPLE[] = "example of a file that is taken:\n"
                                     "  ---\n"
                                     "  name: Short name\n"
                                     "  description: What this file is about, in one line\n"
                                     "  ---\n"
                                     "  The text of the memory.\n"
                                     "MEMORY.md itself has no frontmatter.\n";

typedef struct run {
    checkout *c;
    memfs_buf *offences; /* a line each */
    size_t n_offences;
    bool shows_example;
    memfs_str path; /* of the file that is judged */
} run;

static void offend(run *r, memfs_str path, const char *what, memfs_str detail)
{
    r->n_offences++;
    buf_puts(r->offences, "  ");
    escape_add(r->offences, path);
    buf_printf(r->offences, ": %s", what);
    if (detail.len > 0) {
        buf_puts(r->offences, " '");
        escape_add(r->offences, detail);
        buf_putc(r->offences, '\'');
    }
    buf_putc(r->offences, '\n');
}

/* ---- the first layout: what this commit changes ---- */

typedef struct words {
    const char *text;
    bool needs_example;
} words;

static const words WORDS[] = {
    [PRECOMMIT_SKILL_PATH] = { "skills are folders; use skills/<name>/SKILL.md", false },
    [PRECOMMIT_MISSING_FRONTMATTER] = { "missing frontmatter: the first line must be exactly ---",
                                        true },
    [PRECOMMIT_UNCLOSED_FRONTMATTER] = { "frontmatter is opened but never closed: end it with a "
                                         "line that is exactly ---",
                                         true },
    [PRECOMMIT_READ_ONLY_FILE] = { "the file is read_only and cannot be modified; take it out with "
                                   "'git restore --staged --worktree -- <path>'",
                                   false },
    [PRECOMMIT_UNKNOWN_KEY] = { "only 'description' may stand in the frontmatter; remove the key",
                                true },
    [PRECOMMIT_PROTECTED_SET] = { "'read_only' is not the agent's to set; remove that line", false },
    [PRECOMMIT_PROTECTED_CHANGED] = { "'read_only' is not the agent's to change; put back the "
                                      "value it had",
                                      false },
    [PRECOMMIT_DESCRIPTION_EMPTY] = { "'description' must not be empty", true },
    [PRECOMMIT_MISSING_DESCRIPTION] = { "the frontmatter lacks 'description'", true },
    [PRECOMMIT_PROTECTED_REMOVED] = { "'read_only' is not the agent's to remove; put back the line "
                                      "it had",
                                      false },
};

static void on_rule(precommit_rule rule, memfs_str detail, void *ctx)
{
    run *r = ctx;

    r->shows_example |= WORDS[rule].needs_example;
    offend(r, r->path, WORDS[rule].text,
           rule == PRECOMMIT_UNKNOWN_KEY ? detail : MEMFS_STR(""));
}

/* False after a file that is too large was told; links to other repositories have no text. */
static memfs_code read_text(run *r, memfs_str path, uint32_t mode, const memfs_oid *id,
                            memfs_buf *out, bool *ret_is_read, memfs_error *err)
{
    memfs_code rc;

    *ret_is_read = false;
    if (mode == TREE_MODE_GITLINK)
        return MEMFS_OK;
    rc = repo_blob(checkout_repo(r->c), id, MAX_TEXT, out, err);
    if (rc == MEMFS_ELIMIT) {
        offend(r, path, "larger than 10 MiB; no remote takes such a file", MEMFS_STR(""));
        *err = (memfs_error)MEMFS_ERROR_INIT;
        return MEMFS_OK;
    }
    *ret_is_read = rc == MEMFS_OK;
    return rc;
}

static memfs_code judge(run *r, const staged_change *s, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf head = MEMFS_BUF_INIT(MAX_TEXT);
    _cleanup_(buf_dispose) memfs_buf staged = MEMFS_BUF_INIT(MAX_TEXT);
    bool has_head = false, has_staged = false;
    precommit_file file;
    memfs_code rc;

    rc = read_text(r, s->path, s->new_mode, &s->new_id, &staged, &has_staged, err);
    if (rc == MEMFS_OK && has_staged && s->has_old)
        rc = read_text(r, s->path, s->old_mode, &s->old_id, &head, &has_head, err);
    if (rc < 0 || !has_staged)
        return rc;
    file = (precommit_file){
        .path = s->path,
        .has_head = has_head,
        .head = buf_str(&head),
        .has_staged = true,
        .staged = buf_str(&staged),
        .head_mode = s->old_mode,
        .staged_mode = s->new_mode,
        .is_rename = s->has_old && !str_equal(s->path, s->old_path),
    };
    r->path = s->path;
    precommit_check(&file, on_rule, r);
    return MEMFS_OK;
}

static memfs_code on_staged(const staged_change *s, void *ctx, memfs_error *err)
{
    if (!s->has_new || !str_ends_with(s->path, MEMFS_STR(".md")))
        return MEMFS_OK;
    return judge(ctx, s, err);
}

/* ---- the second layout: all that is tracked ---- */

typedef struct glance {
    bool has_marker; /* MEMORY.md in the index, or in HEAD */
    bool has_config, changes_config;
    char **changed; /* paths that the commit adds or changes, sorted */
    size_t n_changed, cap_changed;
} glance;

typedef struct tracked {
    layout_file *files; /* paths and texts are owned */
    size_t n, cap;
    run *r;
    const glance *g;
    layout_limits limits;
} tracked;

static void glance_dispose(glance *g)
{
    for (size_t i = 0; i < g->n_changed; i++)
        free(g->changed[i]);
    free(g->changed);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_changed(const glance *g, const char *path)
{
    return g->n_changed > 0 &&
           bsearch(&path, g->changed, g->n_changed, sizeof(*g->changed), by_text) != NULL;
}

static void tracked_dispose(tracked *t)
{
    for (size_t i = 0; i < t->n; i++) {
        free((char *)t->files[i].path.ptr);
        free((char *)t->files[i].text.ptr);
    }
    free(t->files);
}

static memfs_code on_entry(memfs_str path, uint32_t mode, const memfs_oid *id, void *ctx,
                           memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MAX_TEXT);
    tracked *t = ctx;
    bool is_config = str_equal(path, CONFIG_FILE), is_read = false;
    memfs_code rc = MEMFS_OK;

    if (str_ends_with(path, MEMFS_STR(".md")) || is_config)
        rc = read_text(t->r, path, mode, id, &text, &is_read, err);
    if (rc < 0)
        return rc;
    if (is_config)
        layout_limits_of(buf_str(&text), &t->limits);
    if (t->n == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 64;
        t->files = mem_realloc(t->files, t->cap, sizeof(*t->files));
    }
    t->files[t->n] = (layout_file){ .path = { mem_strndup(path.ptr, path.len), path.len },
                                    .mode = mode };
    t->files[t->n].is_unchanged = !is_changed(t->g, t->files[t->n].path.ptr);
    if (is_read)
        t->files[t->n].text = str_make(mem_strndup(text.ptr, text.len), text.len);
    t->n++;
    return MEMFS_OK;
}

static void on_layout(memfs_str path, const char *what, void *ctx)
{
    run *r = ctx;

    r->shows_example = true;
    offend(r, path, what, MEMFS_STR(""));
}

static memfs_code judge_layout(run *r, const staged *s, layout_policy policy, const glance *g,
                               memfs_error *err)
{
    _cleanup_(tracked_dispose) tracked t = { .r = r, .g = g, .limits = LAYOUT_LIMITS_INIT };
    memfs_code rc = staged_each_entry(s, on_entry, &t, err);

    if (rc == MEMFS_OK)
        layout_check(policy, &t.limits, t.files, t.n, on_layout, r);
    return rc;
}

/* ---- which of them ---- */

static memfs_code glance_entry(memfs_str path, uint32_t mode, const memfs_oid *id, void *ctx,
                               memfs_error *err)
{
    glance *g = ctx;

    (void)mode;
    (void)id;
    (void)err;
    g->has_marker |= str_equal(path, ROOT_MARKER);
    g->has_config |= str_equal(path, CONFIG_FILE);
    return MEMFS_OK;
}

static memfs_code glance_staged(const staged_change *s, void *ctx, memfs_error *err)
{
    glance *g = ctx;

    (void)err;
    g->has_marker |= s->has_old && str_equal(s->old_path, ROOT_MARKER);
    g->changes_config |= str_equal(s->path, CONFIG_FILE) ||
                         (s->has_old && str_equal(s->old_path, CONFIG_FILE));
    if (!s->has_new)
        return MEMFS_OK;
    if (g->n_changed == g->cap_changed) {
        g->cap_changed = g->cap_changed ? g->cap_changed * 2 : 32;
        g->changed = mem_realloc(g->changed, g->cap_changed, sizeof(*g->changed));
    }
    g->changed[g->n_changed++] = mem_strndup(s->path.ptr, s->path.len);
    return MEMFS_OK;
}

/* Absent is the first layout. */
static memfs_code read_policy(checkout *c, bool has_marker, layout_policy *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/" POLICY_FILE, checkout_common_dir(c));
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
    memfs_code rc = fs_read(path, &text, err);

    if (rc < 0 && rc != MEMFS_ENOTFOUND)
        return rc;
    *err = (memfs_error)MEMFS_ERROR_INIT;
    *ret = layout_policy_of(buf_str(&text), has_marker);
    return MEMFS_OK;
}

static memfs_code conclude(run *r, layout_policy policy, memfs_buf *said, memfs_error *err)
{
    if (r->n_offences == 0)
        return MEMFS_OK;
    memfs_fail(err, MEMFS_EDENIED, "the commit is refused: %zu %s", r->n_offences,
               r->n_offences == 1 ? "rule is broken" : "rules are broken");
    buf_printf(said, "memfs: %s\n", err->msg);
    buf_add_str(said, buf_str(r->offences));
    if (r->shows_example)
        buf_puts(said, policy == LAYOUT_LEGACY ? EXAMPLE : LAYOUT_EXAMPLE);
    buf_puts(said, "Correct the files, 'git add' them and commit again.\n");
    return MEMFS_EDENIED;
}

memfs_code precommit_run(checkout *c, const char *index_file, memfs_buf *said, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf offences = MEMFS_BUF_INIT(said->max_bytes / 2);
    run r = { .c = c, .offences = &offences };
    _cleanup_(glance_dispose) glance g = { .has_marker = false };
    const char *may_update = getenv("LETTA_MEMORY_CONSTRAINTS_UPDATE");
    layout_policy policy = LAYOUT_LEGACY;
    _cleanup_(staged_freep) staged *s = NULL;
    memfs_code rc = staged_read(c, index_file, &s, err);

    if (rc == MEMFS_OK)
        rc = staged_each(s, glance_staged, &g, err);
    if (rc == MEMFS_OK)
        rc = staged_each_entry(s, glance_entry, &g, err);
    if (rc == MEMFS_OK)
        rc = read_policy(c, g.has_marker, &policy, err);
    if (rc < 0)
        return rc;
    if (g.changes_config && (may_update == NULL || strcmp(may_update, "1") != 0))
        offend(&r, CONFIG_FILE,
               "is not the agent's to change; take it out of the commit, or have its owner commit "
               "with LETTA_MEMORY_CONSTRAINTS_UPDATE=1",
               MEMFS_STR(""));
    if (policy == LAYOUT_LEGACY)
        rc = staged_each(s, on_staged, &r, err);
    if (rc == MEMFS_OK && (policy != LAYOUT_LEGACY || g.has_config))
        rc = judge_layout(&r, s, policy, &g, err);
    return rc < 0 ? rc : conclude(&r, policy, said, err);
}
