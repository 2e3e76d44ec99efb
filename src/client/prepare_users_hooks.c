#include "client/prepare.h"

#include "base/fs.h"
#include "base/mem.h"
#include "base/program.h"
#include "store/gitconfig.h"

#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/*
 * A user who has set core.hooksPath for all repositories wants those hooks in memories too.  Our
 * own core.hooksPath is the checkout's and so comes before theirs; that they still run is for
 * memfs-hook to see to (hook/chain.c), which finds in the checkout's configuration what is found
 * here.
 *
 * The levels are git's, lowest first, and the last value counts:
 *
 *   $GIT_CONFIG_SYSTEM, else /etc/gitconfig           unless $GIT_CONFIG_NOSYSTEM
 *   $GIT_CONFIG_GLOBAL                                in place of the next two
 *   $XDG_CONFIG_HOME/git/config, else ~/.config/git/config
 *   ~/.gitconfig
 *
 * include.path is followed where it stands, as deep as git does.  includeIf is not: what it says
 * depends on the place of a repository.
 */

#define MAX_DEPTH 10

typedef struct search {
    const char *file; /* that is read now */
    int depth;
    char *found;
} search;

static bool is_true(const char *value)
{
    return value != NULL && value[0] != '\0' && strcmp(value, "0") != 0 &&
           strcasecmp(value, "false") != 0 && strcasecmp(value, "no") != 0 &&
           strcasecmp(value, "off") != 0;
}

/* "~/x" and "~name/x" as git reads them; NULL: there is nobody of that name.  Caller frees. */
static char *expanded(const char *path)
{
    const char *slash = strchr(path, '/'), *home = getenv("HOME");
    _cleanup_(mem_freep) char *name = NULL;
    const struct passwd *user;

    if (path[0] != '~')
        return mem_strdup(path);
    name = mem_strndup(path + 1, slash != NULL ? (size_t)(slash - path - 1) : strlen(path) - 1);
    if (name[0] != '\0') {
        user = getpwnam(name);
        home = user != NULL ? user->pw_dir : NULL;
    }
    return home != NULL ? mem_printf("%s%s", home, slash != NULL ? slash : "") : NULL;
}

static void read_file(search *s, const char *file);

static void follow(search *s, const char *value)
{
    _cleanup_(mem_freep) char *path = expanded(value), *beside = NULL;
    const char *slash = strrchr(s->file, '/');

    if (path == NULL || path[0] == '/' || slash == NULL) {
        read_file(s, path);
        return;
    }
    beside = mem_printf("%.*s/%s", (int)(slash - s->file), s->file, path);
    read_file(s, beside);
}

static bool on_entry(const char *key, const char *value, void *ctx)
{
    search *s = ctx;

    if (value == NULL)
        return true;
    if (strcmp(key, "include.path") == 0)
        follow(s, value);
    if (strcmp(key, "core.hookspath") == 0) {
        free(s->found);
        s->found = expanded(value);
    }
    return true;
}

/* What cannot be read is not there: git itself tells its user about that. */
static void read_file(search *s, const char *file)
{
    _cleanup_(gitconfig_closep) gitconfig *c = NULL;
    const char *before = s->file;
    memfs_error ignored;

    if (file == NULL || s->depth == MAX_DEPTH || !fs_exists(file) ||
        gitconfig_open(file, &c, &ignored) < 0)
        return;
    s->file = file;
    s->depth++;
    gitconfig_each(c, on_entry, s);
    s->depth--;
    s->file = before;
}

static void read_system(search *s)
{
    const char *file = getenv("GIT_CONFIG_SYSTEM");

    if (!is_true(getenv("GIT_CONFIG_NOSYSTEM")))
        read_file(s, file != NULL ? file : "/etc/gitconfig");
}

static void read_global(search *s)
{
    const char *said = getenv("GIT_CONFIG_GLOBAL"), *home = getenv("HOME");
    const char *xdg = getenv("XDG_CONFIG_HOME");
    _cleanup_(mem_freep) char *in_xdg = NULL, *in_home = NULL;

    if (said != NULL) {
        read_file(s, said);
        return;
    }
    if (xdg != NULL && xdg[0] != '\0')
        in_xdg = mem_printf("%s/git/config", xdg);
    else if (home != NULL)
        in_xdg = mem_printf("%s/.config/git/config", home);
    if (home != NULL)
        in_home = mem_printf("%s/.gitconfig", home);
    read_file(s, in_xdg);
    read_file(s, in_home);
}

/* Somebody made our own folder the general one: memfs-hook would go round in it. */
static bool leads_to_us(const char *folder)
{
    _cleanup_(mem_freep) char *sample = mem_printf("%s/reference-transaction", folder);
    char target[4096];
    ssize_t n = readlink(sample, target, sizeof(target));

    return n > 0 && str_ends_with(str_make(target, (size_t)n), MEMFS_STR("/" PROGRAM_HOOK));
}

char *prepare_users_hooks(void)
{
    search s = { .found = NULL };

    read_system(&s);
    read_global(&s);
    if (s.found != NULL && (s.found[0] == '\0' || leads_to_us(s.found))) {
        free(s.found);
        s.found = NULL;
    }
    return s.found;
}
