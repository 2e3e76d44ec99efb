#include "base/detach.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/process.h"
#include "base/program.h"
#include "hook/hook.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * git-remote-memfs: answers clone, fetch and push of any agent's memory from the local hub
 * (client/hub.h, design 5, contract client 12.2), after `memfs setup git` made git rewrite the
 * memfs URLs to
 *
 *     memfs::<agent id>/state.git          memfs::<agent id>/repositories/<name>.git
 *
 * What is spoken (gitremote-helpers(7)):
 *
 *     git:  capabilities                   us:  connect, and an empty line
 *     git:  connect git-upload-pack        us:  an empty line, and then git upload-pack speaks
 *
 * Commands are read byte by byte: what follows the line is for the program that speaks then.
 *
 * Before that: a missing hub is made by `memfs hook prepare-hub`, which also brings the hub of a
 * shared repository up to date (no sync does that for it); and a checkout that has no hooks
 * of ours yet is given them by `memfs hook adopt-checkout`.  git is waiting for our answer
 * meanwhile, so nobody else is writing its configuration.  The URL in it stays as it is.
 *
 * After a push that moved the hub's main, `memfs hook push-hub` is started and left alone: it
 * carries the commit on to the real remote, and nobody waits for a network.  That is why git
 * receive-pack is a child of ours, with our stdin and stdout, while git upload-pack is what we
 * become.
 *
 * What the checkout's git has told us about itself ends here: GIT_DIR would make the hub's git work
 * on the checkout, and GIT_CONFIG_PARAMETERS carries the Letta key.  The hub's git gets an
 * environment of its own, with nothing inherited, as every git that memfs starts
 * (store/git_child.c); only main can be pushed, no force, no deletion, and it is synced to disk.
 */

#define CHILD_TIMEOUT_MS 15000
#define MAX_LINE 256

extern char **environ;

/* What git sets for its own children (git rev-parse --local-env-vars), and what carries the key. */
static const char *const GITS_OWN[] = {
    "GIT_ALTERNATE_OBJECT_DIRECTORIES=",
    "GIT_CONFIG=",
    "GIT_CONFIG_PARAMETERS=",
    "GIT_CONFIG_COUNT=",
    "GIT_CONFIG_KEY_",
    "GIT_CONFIG_VALUE_",
    "GIT_OBJECT_DIRECTORY=",
    "GIT_DIR=",
    "GIT_WORK_TREE=",
    "GIT_IMPLICIT_WORK_TREE=",
    "GIT_GRAFT_FILE=",
    "GIT_INDEX_FILE=",
    "GIT_NO_REPLACE_OBJECTS=",
    "GIT_REPLACE_REF_BASE=",
    "GIT_PREFIX=",
    "GIT_SHALLOW_FILE=",
    "GIT_COMMON_DIR=",
    "GIT_NAMESPACE=",
    "GIT_INTERNAL_SUPER_PREFIX=",
    "GIT_QUARANTINE_PATH=",
    "GIT_PROTOCOL=",
};

static const char *const ENVIRONMENT[] = {
    "PATH=/usr/bin:/bin:/usr/local/bin",
    "HOME=/nonexistent",
    "LC_ALL=C",
    "TZ=UTC",
    "GIT_CONFIG_NOSYSTEM=1",
    "GIT_CONFIG_GLOBAL=/dev/null",
    "GIT_ATTR_NOSYSTEM=1",
    "GIT_NO_REPLACE_OBJECTS=1",
    "GIT_TERMINAL_PROMPT=0",
    "GIT_ALLOW_PROTOCOL=none",
    "GIT_PROTOCOL_FROM_USER=0",
    "GIT_LITERAL_PATHSPECS=1",
    "GIT_OPTIONAL_LOCKS=0",
    "GIT_NO_LAZY_FETCH=1",
    "GIT_REF_PARANOIA=1",
    "GIT_COMMITTER_NAME=memfs",
    "GIT_COMMITTER_EMAIL=memfs@localhost",
};

typedef struct config_row {
    const char *key, *value;
} config_row;

static const config_row CONFIG[] = {
    { "core.hooksPath", "/dev/null" },
    { "core.fsync", "all" },
    { "core.fsyncMethod", "fsync" },
    { "core.logAllRefUpdates", "always" },
    { "core.fsmonitor", "false" },
    { "core.filesRefLockTimeout", "2000" },
    { "core.packedRefsTimeout", "2000" },
    { "gc.reflogExpire", "never" },
    { "gc.reflogExpireUnreachable", "never" },
    { "gc.autoDetach", "true" },
    { "receive.fsckObjects", "true" },
    { "receive.denyNonFastForwards", "true" },
    { "receive.denyDeletes", "true" },
    { "receive.denyCurrentBranch", "ignore" },
    { "receive.unpackLimit", "1" },
    { "receive.advertisePushOptions", "false" },
    { "receive.shallowUpdate", "false" },
    { "transfer.hideRefs", "refs/" },
    { "transfer.hideRefs", "!refs/heads/main" },
    { "uploadpack.allowAnySHA1InWant", "false" },
    { "uploadpack.allowFilter", "false" },
};

/* vectors of strings, borrowed unless said otherwise */

typedef struct strings {
    const char **at;
    size_t n;
} strings;

static void strings_dispose(strings *v)
{
    free(v->at);
}

static void strings_free_all(strings *v)
{
    for (size_t i = 0; i < v->n; i++)
        free((char *)v->at[i]);
    free(v->at);
}

static void strings_add(strings *v, const char *s)
{
    v->at = mem_realloc(v->at, v->n + 2, sizeof(*v->at));
    v->at[v->n++] = s;
    v->at[v->n] = NULL;
}

static bool is_gits_own(const char *variable)
{
    for (size_t i = 0; i < ARRAY_LEN(GITS_OWN); i++)
        if (strncmp(variable, GITS_OWN[i], strlen(GITS_OWN[i])) == 0)
            return true;
    return false;
}

/* memfs */

/* `memfs hook <args>`, and our own environment without what git has put into it. */
static bool build_memfs(const char *const *args, char **ret_memfs, strings *argv, strings *env)
{
    memfs_error e = MEMFS_ERROR_INIT;

    if (program_path(PROGRAM_MEMFS, ret_memfs, &e) < 0) {
        hook_say("%s", e.msg);
        return false;
    }
    strings_add(argv, *ret_memfs);
    strings_add(argv, "hook");
    for (; *args != NULL; args++)
        strings_add(argv, *args);
    for (char **at = environ; *at != NULL; at++)
        if (!is_gits_own(*at))
            strings_add(env, *at);
    strings_add(env, "GIT_TERMINAL_PROMPT=0");
    return true;
}

/* Runs it; what it says on stderr is passed on. */
static bool run_memfs(const char *const *args)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(64 * 1024);
    _cleanup_(buf_dispose) memfs_buf said = MEMFS_BUF_INIT(16 * 1024);
    _cleanup_(mem_freep) char *memfs = NULL;
    _cleanup_(strings_dispose) strings argv = { NULL, 0 }, env = { NULL, 0 };
    memfs_error e = MEMFS_ERROR_INIT;
    process_spec spec = { 0 };

    if (!build_memfs(args, &memfs, &argv, &env))
        return false;
    spec.argv = argv.at;
    spec.env = env.at;
    if (process_run(&spec, str_make("", 0), &out, &said, CHILD_TIMEOUT_MS, &e) < 0) {
        hook_say("%s", e.msg);
        return false;
    }
    if (said.len > 0 && write(STDERR_FILENO, said.ptr, said.len) < 0)
        return true; /* nobody listens */
    return true;
}

/* Starts it, and nobody waits for its end. */
static void leave_to_memfs(const char *const *args)
{
    _cleanup_(mem_freep) char *memfs = NULL;
    _cleanup_(strings_dispose) strings argv = { NULL, 0 }, env = { NULL, 0 };
    memfs_error e = MEMFS_ERROR_INIT;

    if (build_memfs(args, &memfs, &argv, &env) && detach(argv.at, env.at, &e) < 0)
        hook_say("%s; the next 'memfs sync' carries the commit on", e.msg);
}

static char *hub_path(const char *home, const remote_name *name)
{
    return name->repository[0] == '\0'
               ? mem_printf("%s/hub/%s.git", home, name->agent)
               : mem_printf("%s/hub/%s/repositories/%s.git", home, name->agent, name->repository);
}

static bool prepare_hub(const char *path, const remote_name *name)
{
    _cleanup_(mem_freep) char *head = mem_printf("%s/HEAD", path);
    const char *args[] = { "prepare-hub",    "--agent",
                           name->agent,      name->repository[0] != '\0' ? "--repository" : NULL,
                           name->repository, NULL };

    if (!fs_exists(head))
        return run_memfs(args);
    if (name->repository[0] != '\0')
        (void)!run_memfs(args); /* a mount's hub is refreshed; it answers all the same */
    return true;
}

/*
 * Only a checkout of this very memory: somebody may `git ls-remote` a memory from a project of
 * theirs.  The look is cheap and lets too much through; `memfs hook adopt-checkout` reads the
 * configuration properly.
 */
static bool may_need_adoption(const hook_repo *r, const remote_name *name)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 20);
    _cleanup_(mem_freep) char *path = mem_printf("%s/config", r->common);
    memfs_error e = MEMFS_ERROR_INIT;

    return fs_read(path, &text, &e) == MEMFS_OK && strcasestr(text.ptr, "hookspath") == NULL &&
           strstr(text.ptr, name->agent) != NULL;
}

/* Best effort: what is missing is only our hooks. */
static void adopt_checkout(const remote_name *name)
{
    _cleanup_(hook_repo_dispose) hook_repo r = HOOK_REPO_INIT;
    _cleanup_(mem_freep) char *common = NULL;

    if (getenv("GIT_DIR") == NULL || !hook_repo_find(&r) || !may_need_adoption(&r, name))
        return;
    common = realpath(r.common, NULL);
    if (common != NULL) {
        const char *args[] = {
            "adopt-checkout", "--git-dir", common,
            "--agent",        name->agent, name->repository[0] != '\0' ? "--repository" : NULL,
            name->repository, NULL
        };

        (void)!run_memfs(args);
    }
}

/* git */

/* As store/git_child.c looks for it: fixed places first, then the absolute folders of PATH. */
static char *find_git(void)
{
    static const char *const PLACES[] = { "/usr/bin", "/usr/local/bin", "/bin" };
    memfs_str rest = str_of(getenv("PATH")), folder;
    char *path;

    for (size_t i = 0; i < ARRAY_LEN(PLACES); i++) {
        path = mem_printf("%s/git", PLACES[i]);
        if (access(path, X_OK) == 0)
            return path;
        free(path);
    }
    while (rest.len > 0) {
        if (!str_split(rest, ':', &folder, &rest)) {
            folder = rest;
            rest.len = 0;
        }
        if (folder.len == 0 || folder.ptr[0] != '/')
            continue;
        path = mem_printf("%.*s/git", (int)folder.len, folder.ptr);
        if (access(path, X_OK) == 0)
            return path;
        free(path);
    }
    return NULL;
}

/* env owns its strings. */
static void build_environment(strings *env, const char *hub)
{
    size_t n = ARRAY_LEN(CONFIG);

    for (size_t i = 0; i < ARRAY_LEN(ENVIRONMENT); i++)
        strings_add(env, mem_strdup(ENVIRONMENT[i]));
    for (size_t i = 0; i < n; i++) {
        strings_add(env, mem_printf("GIT_CONFIG_KEY_%zu=%s", i, CONFIG[i].key));
        strings_add(env, mem_printf("GIT_CONFIG_VALUE_%zu=%s", i, CONFIG[i].value));
    }
    strings_add(env, mem_printf("GIT_CONFIG_KEY_%zu=safe.directory", n));
    strings_add(env, mem_printf("GIT_CONFIG_VALUE_%zu=%s", n, hub));
    strings_add(env, mem_printf("GIT_CONFIG_COUNT=%zu", n + 1));
}

static int cannot_run(const char *git, int number)
{
    if (git == NULL)
        hook_say("git is neither in /usr/bin nor in PATH");
    else
        hook_say("could not run '%s': %s", git, strerror(number));
    return 1;
}

static int become_git(const char *service, const char *hub)
{
    _cleanup_(strings_free_all) strings env = { NULL, 0 };
    _cleanup_(mem_freep) char *git = find_git();
    const char *args[] = { "git", service, hub, NULL };

    build_environment(&env, hub);
    if (git != NULL)
        execve(git, (char *const *)args, (char *const *)env.at);
    return cannot_run(git, errno);
}

/* With our own stdin, stdout and stderr, which from then on are the child's alone. */
static int run_git(const char *service, const char *hub)
{
    _cleanup_(strings_free_all) strings env = { NULL, 0 };
    _cleanup_(mem_freep) char *git = find_git();
    const char *args[] = { "git", service, hub, NULL };
    int status = 0, number = 0;
    pid_t pid;

    build_environment(&env, hub);
    signal(SIGCHLD, SIG_DFL); /* who ignores it, as our parents may, cannot wait */
    if (git != NULL)
        number = posix_spawn(&pid, git, NULL, NULL, (char *const *)args, (char *const *)env.at);
    if (git == NULL || number != 0)
        return cannot_run(git, number);
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return 1;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Whatever the client still heard of it: what moved main is kept, and has to travel. */
static int take_push(const char *hub, const remote_name *name)
{
    const char *args[] = { "push-hub",       "--agent",
                           name->agent,      name->repository[0] != '\0' ? "--repository" : NULL,
                           name->repository, NULL };
    memfs_oid before, after;
    bool was_there = refs_read(hub, "refs/heads/main", &before) != REF_ABSENT;
    int status = run_git("receive-pack", hub);

    if (refs_read(hub, "refs/heads/main", &after) != REF_ABSENT &&
        !(was_there && oid_equal(&before, &after)))
        leave_to_memfs(args);
    return status;
}

/* the conversation */

static bool read_line(char *line, size_t size)
{
    size_t n = 0;
    ssize_t got;
    char c;

    for (;;) {
        got = read(STDIN_FILENO, &c, 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0 || n + 1 == size)
            return false;
        if (c == '\n')
            break;
        line[n++] = c;
    }
    line[n] = '\0';
    return true;
}

static bool answer(const char *text)
{
    return write(STDOUT_FILENO, text, strlen(text)) == (ssize_t)strlen(text);
}

static int serve(bool is_push, const remote_name *name)
{
    _cleanup_(mem_freep) char *home = hook_home(), *hub = NULL;

    if (home == NULL) {
        hook_say("set HOME or MEMFS_HOME: the memories of this machine lie there");
        return 1;
    }
    hub = hub_path(home, name);
    if (!prepare_hub(hub, name))
        return 1;
    adopt_checkout(name);
    if (!answer("\n"))
        return 1;
    return is_push ? take_push(hub, name) : become_git("upload-pack", hub);
}

static int converse(const remote_name *name)
{
    char line[MAX_LINE];

    while (read_line(line, sizeof(line)) && line[0] != '\0') {
        if (strcmp(line, "capabilities") == 0) {
            if (!answer("connect\n\n"))
                return 1;
        } else if (strcmp(line, "connect git-upload-pack") == 0) {
            return serve(false, name);
        } else if (strcmp(line, "connect git-receive-pack") == 0) {
            return serve(true, name);
        } else if (strncmp(line, "connect ", 8) == 0) {
            if (!answer("fallback\n"))
                return 1;
        } else {
            hook_say("git asked for '%.40s', which is not known here", line);
            return 1;
        }
    }
    return 0;
}

int remote_helper(int argc, char **argv)
{
    remote_name name;

    if (argc < 3) {
        hook_say("git-remote-memfs is called by git, after 'memfs setup git'");
        return 2;
    }
    if (!remote_name_parse(str_of(argv[2]), &name)) {
        hook_say("'%.200s' is no memory: <agent id>/state.git is expected", argv[2]);
        return 1;
    }
    return converse(&name);
}
