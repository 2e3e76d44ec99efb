#include "client/precommit_run.h"

#include "base/escape.h"
#include "base/fs.h"
#include "base/mem.h"
#include "memory/layout.h"
#include "memory/precommit.h"
#include "store/staged.h"

#include <stdlib.h>

/*
 * Gathers what the rules look at, asks them, and says each offence in a way that an agent can act on: the path, the
 * rule, and at the end what a good file looks like.
 *
 * Which rules: memory/precommit for the files that this commit changes, or memory/layout for all tracked files when
 * the client has put the memory into its second layout (<common git dir>/letta-memory-layout-policy).  In either,
 * .memfs.config.json only changes with LETTA_MEMORY_CONSTRAINTS_UPDATE=1.
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
    memfs_buf *said;
    size_t n_offences;
    bool shows_example;
    memfs_str path; /* of the file that is judged */
} run;

static void offend(run *r, memfs_str path, const char *what, memfs_str detail)
{
    r->n_offences++;
    buf_puts(r->said, "  ");
    escape_add(r->said, path);
    buf_printf(r->said, ": %s", what);
    if (detail.len > 0) {
        buf_puts(r->said, " '");
        escape_add(r->said, detail);
        buf_putc(r->said, '\'');
    }
    buf_putc(r->said, '\n');
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

typedef struct tracked {
    layout_file *files; /* paths and texts are owned */
    size_t n, cap;
    run *r;
    layout_limits limits;
} tracked;

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
    size_t len = 0;

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
    if (is_read) {
        t->files[t->n].text.ptr = mem_strndup(text.ptr, text.len);
        len = text.len;
    }
    t->files[t->n++].text.len = len;
    return MEMFS_OK;
}

static void on_layout(memfs_str path, const char *what, void *ctx)
{
    run *r = ctx;

    r->shows_example = true;
    offend(r, path, what, MEMFS_STR(""));
}

static memfs_code judge_layout(run *r, const char *index_file, layout_policy policy,
                               memfs_error *err)
{
    _cleanup_(tracked_dispose) tracked t = { .r = r, .limits = LAYOUT_LIMITS_INIT };
    memfs_code rc = staged_each_entry(r->c, index_file, on_entry, &t, err);

    if (rc == MEMFS_OK)
        layout_check(policy, &t.limits, t.files, t.n, on_layout, r);
    return rc;
}

/* ---- which of them ---- */

typedef struct glance {
    bool has_marker; /* MEMORY.md in the index, or in HEAD */
    bool changes_config;
} glance;

static memfs_code glance_entry(memfs_str path, uint32_t mode, const memfs_oid *id, void *ctx,
                               memfs_error *err)
{
    glance *g = ctx;

    (void)mode;
    (void)id;
    (void)err;
    g->has_marker |= str_equal(path, ROOT_MARKER);
    return MEMFS_OK;
}

static memfs_code glance_staged(const staged_change *s, void *ctx, memfs_error *err)
{
    glance *g = ctx;

    (void)err;
    g->has_marker |= s->has_old && str_equal(s->old_path, ROOT_MARKER);
    g->changes_config |= str_equal(s->path, CONFIG_FILE) ||
                         (s->has_old && str_equal(s->old_path, CONFIG_FILE));
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

static memfs_code conclude(run *r, layout_policy policy, memfs_error *err)
{
    if (r->n_offences == 0)
        return MEMFS_OK;
    if (r->shows_example)
        buf_puts(r->said, policy == LAYOUT_LEGACY ? EXAMPLE : LAYOUT_EXAMPLE);
    buf_puts(r->said, "Correct the files, 'git add' them and commit again.\n");
    return memfs_fail(err, MEMFS_EDENIED, "the commit is refused: %zu %s", r->n_offences,
                      r->n_offences == 1 ? "rule is broken" : "rules are broken");
}

memfs_code precommit_run(checkout *c, const char *index_file, memfs_buf *said, memfs_error *err)
{
    run r = { .c = c, .said = said };
    glance g = { false, false };
    const char *may_update = getenv("LETTA_MEMORY_CONSTRAINTS_UPDATE");
    layout_policy policy = LAYOUT_LEGACY;
    memfs_code rc = staged_each(c, index_file, glance_staged, &g, err);

    if (rc == MEMFS_OK)
        rc = staged_each_entry(c, index_file, glance_entry, &g, err);
    if (rc == MEMFS_OK)
        rc = read_policy(c, g.has_marker, &policy, err);
    if (rc < 0)
        return rc;
    if (g.changes_config && (may_update == NULL || strcmp(may_update, "1") != 0))
        offend(&r, CONFIG_FILE,
               "is not the agent's to change; take it out of the commit, or have its owner commit "
               "with LETTA_MEMORY_CONSTRAINTS_UPDATE=1",
               MEMFS_STR(""));
    rc = policy == LAYOUT_LEGACY ? staged_each(c, index_file, on_staged, &r, err)
                                 : judge_layout(&r, index_file, policy, err);
    return rc < 0 ? rc : conclude(&r, policy, err);
}
