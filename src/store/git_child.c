#include "store/git_child.h"

#include "base/mem.h"
#include "store/store_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * One table for the environment, one for the configuration; a row says for which jobs it holds.
 * Configuration travels in GIT_CONFIG_KEY_n / GIT_CONFIG_VALUE_n: out of argv, and at the scope of
 * a command line, which wins over whatever lies in a repository.
 */

enum {
    FOR_RECEIVE = 1 << GIT_JOB_INDEX_PACK,
    FOR_UPLOAD = 1 << GIT_JOB_UPLOAD_PACK,
    FOR_REPACK = 1 << GIT_JOB_REPACK,
    FOR_FSCK = 1 << GIT_JOB_FSCK,
    FOR_ALL = FOR_RECEIVE | FOR_UPLOAD | FOR_REPACK | FOR_FSCK,
};

static const char *const ENVIRONMENT[] = {
    "PATH=/usr/bin:/bin:/usr/local/bin",
    "LC_ALL=C",
    "TZ=UTC",
    "GIT_CONFIG_NOSYSTEM=1",
    "GIT_CONFIG_GLOBAL=/dev/null",
    "GIT_ATTR_NOSYSTEM=1",
    "GIT_NO_REPLACE_OBJECTS=1",
    "GIT_TERMINAL_PROMPT=0",
    "GIT_ASKPASS=/bin/false",
    "SSH_ASKPASS=/bin/false",
    "SSH_ASKPASS_REQUIRE=force",
    "GIT_ALLOW_PROTOCOL=none",
    "GIT_PROTOCOL_FROM_USER=0",
    "GIT_LITERAL_PATHSPECS=1",
    "GIT_OPTIONAL_LOCKS=0",
    "GIT_NO_LAZY_FETCH=1",
    "GIT_REF_PARANOIA=1",
    "GIT_COMMITTER_NAME=memfs",
    "GIT_COMMITTER_EMAIL=memfs@localhost",
    "GIT_AUTHOR_NAME=memfs",
    "GIT_AUTHOR_EMAIL=memfs@localhost",
};

typedef struct config_row {
    unsigned jobs;
    const char *key, *value;
} config_row;

static const config_row CONFIG[] = {
    { FOR_ALL, "core.hooksPath", "/dev/null" },
    { FOR_ALL, "core.fsync", "all" },
    { FOR_ALL, "core.fsyncMethod", "fsync" },
    { FOR_ALL, "core.logAllRefUpdates", "always" },
    { FOR_ALL, "gc.reflogExpire", "never" },
    { FOR_ALL, "gc.reflogExpireUnreachable", "never" },
    { FOR_ALL, "gc.auto", "0" },
    { FOR_ALL, "maintenance.auto", "false" },
    { FOR_ALL, "core.protectHFS", "true" },
    { FOR_ALL, "core.protectNTFS", "true" },
    { FOR_ALL, "core.fsmonitor", "false" },
    { FOR_ALL, "core.attributesFile", "/dev/null" },
    { FOR_ALL, "core.excludesFile", "/dev/null" },
    { FOR_ALL, "core.pager", "cat" },
    { FOR_ALL, "core.editor", "false" },
    /* what makes a child fit inside its address space */
    { FOR_ALL, "core.bigFileThreshold", "1m" },
    { FOR_ALL, "core.packedGitWindowSize", "16m" },
    { FOR_ALL, "core.packedGitLimit", "128m" },
    { FOR_ALL, "core.deltaBaseCacheLimit", "32m" },
    { FOR_ALL, "pack.threads", "1" },
    { FOR_ALL, "pack.windowMemory", "64m" },
    { FOR_ALL, "core.filesRefLockTimeout", "2000" },
    { FOR_ALL, "core.packedRefsTimeout", "2000" },
    { FOR_ALL, "safe.bareRepository", "explicit" },
    { FOR_ALL, "submodule.recurse", "false" },
    { FOR_ALL, "fetch.recurseSubmodules", "false" },
    { FOR_ALL, "protocol.version", "2" },
    { FOR_ALL, "transfer.bundleURI", "false" },
    { FOR_ALL, "commit.gpgSign", "false" },
    { FOR_ALL, "tag.gpgSign", "false" },
    { FOR_ALL, "push.gpgSign", "false" },
    { FOR_ALL, "init.templateDir", "" },
    { FOR_RECEIVE, "transfer.fsckObjects", "true" },
    { FOR_RECEIVE, "receive.fsckObjects", "true" },
    { FOR_UPLOAD, "transfer.hideRefs", "refs/" },
    { FOR_UPLOAD, "transfer.hideRefs", "!refs/heads/" },
    { FOR_UPLOAD, "uploadpack.allowAnySHA1InWant", "false" },
    { FOR_UPLOAD, "uploadpack.allowFilter", "false" },
    { FOR_REPACK, "repack.writeBitmaps", "false" },
    { FOR_REPACK, "repack.updateServerInfo", "false" },
};

typedef struct job_limits {
    uint64_t cpu_s, file_size_bytes;
} job_limits;

static const job_limits LIMITS[] = {
    [GIT_JOB_INDEX_PACK] = { 60, 80u << 20 },
    [GIT_JOB_UPLOAD_PACK] = { 60, 16u << 20 },
    [GIT_JOB_REPACK] = { 600, 0 }, /* our own data, whatever it has grown to */
    [GIT_JOB_FSCK] = { 600, 16u << 20 },
};

/* A NULL-terminated vector of strings that it owns. */
typedef struct strings {
    char **at;
    size_t n, cap;
} strings;

static void strings_dispose(strings *v)
{
    for (size_t i = 0; i < v->n; i++)
        free(v->at[i]);
    free(v->at);
}

static void strings_add(strings *v, char *given)
{
    if (v->n + 2 > v->cap) {
        v->cap = v->cap ? v->cap * 2 : 160;
        v->at = mem_realloc(v->at, v->cap, sizeof(*v->at));
    }
    v->at[v->n++] = given;
    v->at[v->n] = NULL;
}

static void add_config(strings *env, unsigned *n, const char *key, const char *value)
{
    strings_add(env, mem_printf("GIT_CONFIG_KEY_%u=%s", *n, key));
    strings_add(env, mem_printf("GIT_CONFIG_VALUE_%u=%s", *n, value));
    *n += 1;
}

static bool protocol_is_known(const char *protocol)
{
    return protocol != NULL && strlen(protocol) == 9 && strncmp(protocol, "version=", 8) == 0 &&
           protocol[8] >= '0' && protocol[8] <= '2';
}

/* The list of alternates is split at ':' unless an entry is quoted. */
static char *alternate_variable(const char *dir)
{
    memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    buf_puts(&text, "GIT_ALTERNATE_OBJECT_DIRECTORIES=\"");
    for (; *dir != '\0'; dir++) {
        if (*dir == '"' || *dir == '\\')
            buf_putc(&text, '\\');
        buf_putc(&text, *dir);
    }
    buf_putc(&text, '"');
    return buf_take(&text, NULL);
}

static void build_environment(const store *s, git_job job, const git_child_options *o,
                              strings *env)
{
    unsigned n = 0;

    for (size_t i = 0; i < ARRAY_LEN(ENVIRONMENT); i++)
        strings_add(env, mem_strdup(ENVIRONMENT[i]));
    strings_add(env, mem_printf("HOME=%s", s->empty));
    strings_add(env, mem_printf("GIT_DIR=%s", o->git_dir));
    if (o->object_dir != NULL)
        strings_add(env, mem_printf("GIT_OBJECT_DIRECTORY=%s", o->object_dir));
    if (o->alternate_dir != NULL)
        strings_add(env, alternate_variable(o->alternate_dir));
    if (protocol_is_known(o->protocol))
        strings_add(env, mem_printf("GIT_PROTOCOL=%s", o->protocol));
    for (size_t i = 0; i < ARRAY_LEN(CONFIG); i++)
        if (CONFIG[i].jobs & 1u << job)
            add_config(env, &n, CONFIG[i].key, CONFIG[i].value);
    add_config(env, &n, "safe.directory", o->git_dir);
    strings_add(env, mem_printf("GIT_CONFIG_COUNT=%u", n));
}

static void build_argv(const store *s, const git_child_options *o, strings *argv)
{
    strings_add(argv, mem_strdup(s->git));
    for (size_t i = 0; o->args[i] != NULL; i++)
        strings_add(argv, mem_strdup(o->args[i]));
}

static process_spec build_spec(git_job job, const git_child_options *o, const strings *argv,
                               const strings *env)
{
    return (process_spec){
        .argv = (const char *const *)argv->at,
        .env = (const char *const *)env->at,
        .cpu_s = LIMITS[job].cpu_s,
        .address_space_bytes = 1u << 30,
        .file_size_bytes = o->file_size_bytes ? o->file_size_bytes : LIMITS[job].file_size_bytes,
        .n_files = 256,
    };
}

memfs_code git_child_start(const store *s, git_job job, const git_child_options *o, process *ret,
                           memfs_error *err)
{
    _cleanup_(strings_dispose) strings argv = { NULL, 0, 0 }, env = { NULL, 0, 0 };
    uint64_t reader = readers_begin(s->readers, o->git_dir);
    process_spec spec;
    memfs_code rc;

    build_argv(s, o, &argv);
    build_environment(s, job, o, &env);
    spec = build_spec(job, o, &argv, &env);
    rc = process_start(&spec, ret, err);
    if (rc < 0)
        readers_end(s->readers, reader);
    else
        readers_end_with(s->readers, reader, ret->pid);
    return rc;
}

memfs_code git_child_run(const store *s, git_job job, const git_child_options *o, memfs_buf *out,
                         memfs_buf *err_tail, int64_t timeout_ms, memfs_error *err)
{
    _cleanup_(strings_dispose) strings argv = { NULL, 0, 0 }, env = { NULL, 0, 0 };
    uint64_t reader = readers_begin(s->readers, o->git_dir);
    process_spec spec;
    memfs_code rc;

    build_argv(s, o, &argv);
    build_environment(s, job, o, &env);
    spec = build_spec(job, o, &argv, &env);
    rc = process_run(&spec, MEMFS_STR(""), out, err_tail, timeout_ms, err);
    readers_end(s->readers, reader);
    return rc;
}

memfs_code git_upload_pack_start(const store *s, const char *name, const char *protocol,
                                 process *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path =
        name != NULL ? store_path(s, name) : mem_strdup(store_genesis_path(s));
    const char *args[] = { "upload-pack", "--stateless-rpc", "--strict", "--", path, NULL };
    git_child_options o = { .git_dir = path, .args = args, .protocol = protocol };

    return git_child_start(s, GIT_JOB_UPLOAD_PACK, &o, ret, err);
}

/* finding git */

static memfs_code ask(const char *git, const char *empty_home, const char *question,
                      memfs_buf *answer, memfs_error *err)
{
    _cleanup_(mem_freep) char *home = mem_printf("HOME=%s", empty_home);
    const char *argv[] = { git, question, NULL };
    const char *env[] = { home, "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
                          NULL };
    process_spec spec = { .argv = argv, .env = env };

    return process_run(&spec, MEMFS_STR(""), answer, NULL, 5000, err);
}

static memfs_code check_version(const char *git, const char *empty_home, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf answer = MEMFS_BUF_INIT(4096);
    memfs_code rc = ask(git, empty_home, "--version", &answer, err);
    unsigned major = 0, minor = 0;

    if (rc < 0)
        return rc;
    if (sscanf(answer.ptr, "git version %u.%u", &major, &minor) != 2)
        return memfs_fail(err, MEMFS_EUNAVAIL, "git does not tell its version");
    if (major < 2 || (major == 2 && minor < 36))
        return memfs_fail(err, MEMFS_EUNAVAIL, "git %u.%u is too old: 2.36 or newer is needed",
                          major, minor);
    return MEMFS_OK;
}

static bool has_line(memfs_str text, const char *line)
{
    memfs_str head;

    while (str_split(text, '\n', &head, &text))
        if (str_equal(head, str_of(line)))
            return true;
    return str_equal(text, str_of(line));
}

static memfs_code check_commands(const char *git, const char *empty_home, memfs_error *err)
{
    static const char *const needed[] = { "index-pack", "upload-pack",  "pack-objects", "repack",
                                          "prune",      "prune-packed", "fsck" };
    _cleanup_(buf_dispose) memfs_buf answer = MEMFS_BUF_INIT(64 * 1024);
    memfs_code rc = ask(git, empty_home, "--list-cmds=builtins", &answer, err);

    if (rc < 0)
        return rc;
    for (size_t i = 0; i < ARRAY_LEN(needed); i++)
        if (!has_line(buf_str(&answer), needed[i]))
            return memfs_fail(err, MEMFS_EUNAVAIL, "git has no command '%s'", needed[i]);
    return MEMFS_OK;
}

static char *executable_in(memfs_str folder)
{
    char *path;

    if (folder.len == 0 || folder.ptr[0] != '/')
        return NULL; /* a relative folder would let the working directory choose the program */
    path = mem_printf("%.*s/git", (int)folder.len, folder.ptr);
    if (access(path, X_OK) == 0)
        return path;
    free(path);
    return NULL;
}

static char *find_git(void)
{
    static const char *const usual[] = { "/usr/bin", "/usr/local/bin", "/bin" };
    const char *search = getenv("PATH");
    memfs_str rest = str_of(search), folder;
    char *git = NULL;

    for (size_t i = 0; git == NULL && i < ARRAY_LEN(usual); i++)
        git = executable_in(str_of(usual[i]));
    while (git == NULL && rest.len > 0) {
        if (!str_split(rest, ':', &folder, &rest)) {
            folder = rest;
            rest.len = 0;
        }
        git = executable_in(folder);
    }
    return git;
}

memfs_code git_child_find(const char *empty_home, char **ret_git, memfs_error *err)
{
    _cleanup_(mem_freep) char *git = find_git();
    memfs_code rc;

    if (git == NULL)
        return memfs_fail(err, MEMFS_EUNAVAIL, "git is not installed: version 2.36 or newer is "
                                               "needed in /usr/bin or in PATH");
    rc = check_version(git, empty_home, err);
    if (rc == MEMFS_OK)
        rc = check_commands(git, empty_home, err);
    if (rc == MEMFS_OK)
        *ret_git = TAKE_PTR(git);
    return rc;
}
