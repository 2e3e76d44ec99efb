#include "base/fs.h"
#include "base/mem.h"
#include "base/program.h"
#include "client/hub.h"
#include "store/gitconfig.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

/*
 * `memfs setup git` is one key in the user's git config, and a program in PATH:
 *
 *     [url "memfs::"]
 *         insteadOf = <base>/v1/git/
 *
 * The key without the program would stop every clone and push to the Letta endpoint, so the program
 * is looked for first, and undo takes away the key alone.
 *
 * Clients up to 0.22 make their git addresses from LETTA_BASE_URL, those from 0.25 on from
 * LETTA_MEMFS_BASE_URL (contract client 2); when both are set and differ, both are rewritten.
 *
 * git reads two global files, $XDG_CONFIG_HOME/git/config and ~/.gitconfig, and writes to the
 * second, if that is there or the first is not.  So do we; undo looks into both.
 * $GIT_CONFIG_GLOBAL stands for both.  A file that is a link (dotfiles) stays one.
 */

#define KEY "url.memfs::.insteadOf"
#define MAX_BASES 2
#define MAX_FILES 2

void hub_setup_dispose(hub_setup *h)
{
    free(h->base);
    free(h->git_config);
    *h = (hub_setup){ .base = NULL };
}

/* what is rewritten */

typedef struct bases {
    char *at[MAX_BASES]; /* "<base>/v1/git/" */
    size_t n;
} bases;

static void bases_dispose(bases *b)
{
    for (size_t i = 0; i < b->n; i++)
        free(b->at[i]);
}

static void add_base(bases *b, const char *base)
{
    size_t len = strlen(base);
    char *text;

    while (len > 0 && base[len - 1] == '/')
        len--;
    text = mem_printf("%.*s/v1/git/", (int)len, base);
    for (size_t i = 0; i < b->n; i++)
        if (strcmp(b->at[i], text) == 0) {
            free(text);
            return;
        }
    b->at[b->n++] = text;
}

static memfs_code find_bases(const settings *s, bases *ret, memfs_error *err)
{
    const char *older = setting_text(s, SETTING_BASE_URL);

    add_base(ret, backend_letta_base(s));
    if (older != NULL)
        add_base(ret, older);
    for (size_t i = 0; i < ret->n; i++)
        if (strncmp(ret->at[i], "http://", 7) != 0 && strncmp(ret->at[i], "https://", 8) != 0)
            return memfs_fail(err, MEMFS_EINVALID,
                              "LETTA_MEMFS_BASE_URL and LETTA_BASE_URL must begin "
                              "with https:// or http://");
    return MEMFS_OK;
}

/* the files */

typedef struct files {
    char *at[MAX_FILES]; /* the first is the one that is written */
    size_t n;
} files;

static void files_dispose(files *f)
{
    for (size_t i = 0; i < f->n; i++)
        free(f->at[i]);
}

/* given; a link is followed, so that renaming over it leaves it a link. */
static void add_file(files *f, char *path)
{
    char *real = realpath(path, NULL);

    if (real != NULL) {
        free(path);
        path = real;
    }
    f->at[f->n++] = path;
}

static memfs_code find_files(files *ret, memfs_error *err)
{
    const char *global = getenv("GIT_CONFIG_GLOBAL"), *home = getenv("HOME");
    const char *xdg = getenv("XDG_CONFIG_HOME");
    char *ours, *xdgs;

    if (global != NULL && global[0] != '\0') {
        if (strcmp(global, "/dev/null") == 0)
            return memfs_fail(err, MEMFS_EINVALID,
                              "GIT_CONFIG_GLOBAL is /dev/null: there is no global "
                              "git config to write to");
        add_file(ret, mem_strdup(global));
        return MEMFS_OK;
    }
    if (home == NULL || home[0] != '/')
        return memfs_fail(err, MEMFS_EINVALID, "HOME is not set: there is no global git config");
    ours = mem_printf("%s/.gitconfig", home);
    xdgs = xdg != NULL && xdg[0] == '/' ? mem_printf("%s/git/config", xdg)
                                        : mem_printf("%s/.config/git/config", home);
    if (!fs_exists(ours) && fs_exists(xdgs)) {
        add_file(ret, xdgs);
        free(ours);
        return MEMFS_OK;
    }
    add_file(ret, ours);
    if (fs_exists(xdgs))
        add_file(ret, xdgs);
    else
        free(xdgs);
    return MEMFS_OK;
}

/* the program */

static bool is_in_path(const char *program)
{
    memfs_str rest = str_of(getenv("PATH")), folder;

    while (rest.len > 0) {
        _cleanup_(mem_freep) char *path = NULL;

        if (!str_split(rest, ':', &folder, &rest)) {
            folder = rest;
            rest.len = 0;
        }
        path = mem_printf("%.*s/%s", (int)folder.len, folder.ptr, program);
        if (folder.len > 0 && access(path, X_OK) == 0)
            return true;
    }
    return false;
}

static memfs_code check_program(memfs_error *err)
{
    _cleanup_(mem_freep) char *path = NULL;
    memfs_code rc;

    if (is_in_path(PROGRAM_REMOTE_HELPER))
        return MEMFS_OK;
    rc = program_path(PROGRAM_REMOTE_HELPER, &path, err);
    if (rc < 0)
        return rc;
    return memfs_fail(
        err, MEMFS_ENOTFOUND,
        "'" PROGRAM_REMOTE_HELPER "' is not in PATH, so git cannot start "
        "it: run 'ln -s %s ~/.local/bin/' (or into another folder of PATH), or 'make install'",
        path);
}

/* looking */

typedef struct counting {
    const bases *b;
    size_t n_wanted, n_other;
} counting;

static bool count_value(const char *key, const char *value, void *ctx)
{
    counting *c = ctx;

    if (strcasecmp(key, KEY) != 0 || value == NULL)
        return true;
    for (size_t i = 0; i < c->b->n; i++)
        if (strcmp(value, c->b->at[i]) == 0) {
            c->n_wanted++;
            return true;
        }
    c->n_other++;
    return true;
}

static memfs_code count(const files *f, const bases *b, counting *ret, memfs_error *err)
{
    *ret = (counting){ b, 0, 0 };
    for (size_t i = 0; i < f->n; i++) {
        _cleanup_(gitconfig_closep) gitconfig *g = NULL;
        memfs_code rc = gitconfig_open(f->at[i], &g, err);

        if (rc < 0)
            return rc;
        gitconfig_each(g, count_value, ret);
    }
    return MEMFS_OK;
}

static void describe(const files *f, const bases *b, const counting *n, hub_setup *ret)
{
    memfs_error e = MEMFS_ERROR_INIT;

    ret->is_on = n->n_wanted + n->n_other > 0;
    ret->base = b->n > 1 ? mem_printf("%s %s", b->at[0], b->at[1]) : mem_strdup(b->at[0]);
    ret->git_config = mem_strdup(f->at[0]);
    ret->problem[0] = '\0';
    if (!ret->is_on)
        return;
    if (n->n_wanted < b->n || n->n_other > 0)
        snprintf(ret->problem, sizeof(ret->problem),
                 "git rewrites other addresses than %s: run "
                 "'memfs setup git' again",
                 ret->base);
    if (check_program(&e) < 0)
        snprintf(ret->problem, sizeof(ret->problem), "%s", e.msg);
}

static memfs_code look(const settings *s, files *f, bases *b, hub_setup *ret, memfs_error *err)
{
    memfs_code rc = find_bases(s, b, err);
    counting n;

    if (rc == MEMFS_OK)
        rc = find_files(f, err);
    if (rc == MEMFS_OK)
        rc = count(f, b, &n, err);
    if (rc == MEMFS_OK)
        describe(f, b, &n, ret);
    return rc;
}

memfs_code hub_setup_look(const settings *s, hub_setup *ret, memfs_error *err)
{
    _cleanup_(files_dispose) files f = { .n = 0 };
    _cleanup_(bases_dispose) bases b = { .n = 0 };

    return look(s, &f, &b, ret, err);
}

/* changing */

/* From the files that come at `first` and later. */
static memfs_code remove_bases(const files *f, size_t first, memfs_error *err)
{
    gitconfig_change none = { KEY, NULL };
    memfs_code rc = MEMFS_OK;

    for (size_t i = first; i < f->n && rc == MEMFS_OK; i++)
        if (fs_exists(f->at[i]))
            rc = gitconfig_apply(f->at[i], &none, 1, err);
    return rc;
}

/* What an earlier setup left in the other file would be added to it. */
static memfs_code write_bases(const files *f, const bases *b, memfs_error *err)
{
    gitconfig_change changes[MAX_BASES];
    memfs_code rc;

    for (size_t i = 0; i < b->n; i++)
        changes[i] = (gitconfig_change){ KEY, b->at[i] };
    rc = gitconfig_apply(f->at[0], changes, b->n, err);
    return rc == MEMFS_OK ? remove_bases(f, 1, err) : rc;
}

memfs_code hub_setup_git(const settings *s, bool is_undo, hub_setup *ret, memfs_error *err)
{
    _cleanup_(files_dispose) files f = { .n = 0 };
    _cleanup_(bases_dispose) bases b = { .n = 0 };
    _cleanup_(bases_dispose) bases again = { .n = 0 };
    _cleanup_(files_dispose) files same = { .n = 0 };
    memfs_code rc = find_bases(s, &b, err);

    if (rc == MEMFS_OK)
        rc = find_files(&f, err);
    if (rc == MEMFS_OK && !is_undo)
        rc = check_program(err);
    if (rc == MEMFS_OK)
        rc = is_undo ? remove_bases(&f, 0, err) : write_bases(&f, &b, err);
    return rc == MEMFS_OK ? look(s, &same, &again, ret, err) : rc;
}
