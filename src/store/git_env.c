#include "store/git_env.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * One table for the environment, one for the configuration, one for limits; a row says for which
 * jobs it holds.
 *
 * GIT_JOB_CREDENTIAL is the one that runs as the user has set git up: it asks the user's own
 * helpers, and what it may do is find a password without a prompt.  Everything else sees none of
 * the user's or the system's configuration.
 */

enum {
    FOR_RECEIVE = 1 << GIT_JOB_INDEX_PACK,
    FOR_UPLOAD = 1 << GIT_JOB_UPLOAD_PACK,
    FOR_REPACK = 1 << GIT_JOB_REPACK,
    FOR_FSCK = 1 << GIT_JOB_FSCK,
    FOR_FETCH = 1 << GIT_JOB_FETCH,
    FOR_PUSH = 1 << GIT_JOB_PUSH,
    FOR_LS = 1 << GIT_JOB_LS,
    FOR_INIT = 1 << GIT_JOB_INIT,
    FOR_CREDENTIAL = 1 << GIT_JOB_CREDENTIAL,
    FOR_SERVER = FOR_RECEIVE | FOR_UPLOAD | FOR_REPACK | FOR_FSCK | FOR_INIT,
    FOR_REMOTE = FOR_FETCH | FOR_PUSH | FOR_LS,
    FOR_ALL = FOR_SERVER | FOR_REMOTE,
    FOR_EVERYONE = FOR_ALL | FOR_CREDENTIAL,
};

typedef struct variable_row {
    unsigned jobs;
    const char *text;
} variable_row;

static const variable_row ENVIRONMENT[] = {
    { FOR_ALL, "PATH=/usr/bin:/bin:/usr/local/bin" },
    { FOR_EVERYONE, "LC_ALL=C" },
    { FOR_EVERYONE, "TZ=UTC" },
    { FOR_ALL, "GIT_CONFIG_NOSYSTEM=1" },
    { FOR_ALL, "GIT_CONFIG_GLOBAL=/dev/null" },
    { FOR_ALL, "GIT_ATTR_NOSYSTEM=1" },
    { FOR_ALL, "GIT_NO_REPLACE_OBJECTS=1" },
    { FOR_EVERYONE, "GIT_TERMINAL_PROMPT=0" },
    { FOR_EVERYONE, "GIT_ASKPASS=/bin/false" },
    { FOR_EVERYONE, "SSH_ASKPASS=/bin/false" },
    { FOR_EVERYONE, "SSH_ASKPASS_REQUIRE=force" },
    { FOR_CREDENTIAL, "GCM_INTERACTIVE=never" },
    { FOR_SERVER, "GIT_ALLOW_PROTOCOL=none" }, /* a transport names its own */
    { FOR_ALL, "GIT_PROTOCOL_FROM_USER=0" },
    { FOR_ALL, "GIT_LITERAL_PATHSPECS=1" },
    { FOR_ALL, "GIT_OPTIONAL_LOCKS=0" },
    { FOR_ALL, "GIT_NO_LAZY_FETCH=1" },
    { FOR_ALL, "GIT_REF_PARANOIA=1" },
    { FOR_REMOTE, "GIT_REFLOG_ACTION=memfs" },
    { FOR_REMOTE, "GIT_SSH_VARIANT=ssh" },
    { FOR_ALL, "GIT_COMMITTER_NAME=memfs" },
    { FOR_ALL, "GIT_COMMITTER_EMAIL=memfs@localhost" },
    { FOR_ALL, "GIT_AUTHOR_NAME=memfs" },
    { FOR_ALL, "GIT_AUTHOR_EMAIL=memfs@localhost" },
};

typedef struct config_row {
    unsigned jobs;
    const char *key, *value;
} config_row;

static const config_row CONFIG[] = {
    { FOR_ALL, "core.hooksPath", "/dev/null" },
    { FOR_ALL, "core.fsync", "all" },
    { FOR_SERVER, "core.fsyncMethod", "fsync" },
    { FOR_REMOTE, "core.fsyncMethod", "batch" }, /* many loose objects, one flush of the disk */
    { FOR_SERVER, "core.logAllRefUpdates", "always" },
    { FOR_ALL, "gc.reflogExpire", "never" },
    { FOR_ALL, "gc.reflogExpireUnreachable", "never" },
    { FOR_ALL, "gc.auto", "0" },
    { FOR_ALL, "maintenance.auto", "false" },
    { FOR_ALL, "core.protectHFS", "true" },
    { FOR_ALL, "core.protectNTFS", "true" },
    { FOR_ALL, "core.fsmonitor", "false" },
    { FOR_ALL, "core.attributesFile", "/dev/null" },
    { FOR_ALL, "core.excludesFile", "/dev/null" },
    { FOR_ALL, "core.alternateRefsCommand", "true" }, /* a program, and "" would run the shell */
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
    { FOR_RECEIVE | FOR_REMOTE, "transfer.fsckObjects", "true" },
    { FOR_RECEIVE, "receive.fsckObjects", "true" },
    { FOR_UPLOAD, "transfer.hideRefs", "refs/" },
    { FOR_UPLOAD, "transfer.hideRefs", "!refs/heads/" },
    { FOR_UPLOAD, "uploadpack.allowAnySHA1InWant", "false" },
    { FOR_UPLOAD, "uploadpack.allowFilter", "false" },
    { FOR_REPACK, "repack.writeBitmaps", "false" },
    { FOR_REPACK, "repack.updateServerInfo", "false" },
    { FOR_FETCH, "fetch.fsckObjects", "true" },
    { FOR_FETCH, "fetch.writeCommitGraph", "false" },
    { FOR_FETCH, "fetch.prune", "false" },
    { FOR_FETCH, "fetch.pruneTags", "false" },
    { FOR_PUSH, "push.followTags", "false" },
    { FOR_PUSH, "push.recurseSubmodules", "no" },
    { FOR_PUSH, "push.useForceIfIncludes", "false" },
    { FOR_PUSH, "push.pushOption", "" },
    { FOR_REMOTE, "transfer.credentialsInUrl", "die" },
    { FOR_REMOTE, "credential.useHttpPath", "true" },
    /* resets every helper of the files; the transport adds its own behind it */
    { FOR_REMOTE, "credential.helper", "" },
};

typedef struct job_limits {
    uint64_t cpu_s, file_size_bytes;
} job_limits;

static const job_limits LIMITS[GIT_N_JOBS] = {
    [GIT_JOB_INDEX_PACK] = { 60, 80u << 20 },
    [GIT_JOB_UPLOAD_PACK] = { 60, 16u << 20 },
    [GIT_JOB_REPACK] = { 600, 0 }, /* our own data, whatever it has grown to */
    [GIT_JOB_FSCK] = { 600, 16u << 20 },
    [GIT_JOB_FETCH] = { 60, 256u << 20 },
    [GIT_JOB_PUSH] = { 60, 256u << 20 },
    [GIT_JOB_LS] = { 60, 16u << 20 },
    [GIT_JOB_INIT] = { 60, 16u << 20 },
    [GIT_JOB_CREDENTIAL] = { 60, 16u << 20 },
};

void git_strings_dispose(git_strings *v)
{
    for (size_t i = 0; i < v->n; i++)
        free(v->at[i]);
    free(v->at);
    *v = (git_strings)GIT_STRINGS_INIT;
}

void git_strings_add(git_strings *v, char *given)
{
    if (v->n + 2 > v->cap) {
        v->cap = v->cap ? v->cap * 2 : 160;
        v->at = mem_realloc(v->at, v->cap, sizeof(*v->at));
    }
    v->at[v->n++] = given;
    v->at[v->n] = NULL;
}

void git_env_dispose(git_env *e)
{
    git_strings_dispose(&e->vars);
}

void git_env_add(git_env *e, const char *fmt, ...)
{
    char *text = NULL;
    va_list args;
    int n;

    va_start(args, fmt);
    n = vasprintf(&text, fmt, args);
    va_end(args);
    if (n < 0)
        abort(); /* as mem.h has it */
    git_strings_add(&e->vars, text);
}

void git_env_pass(git_env *e, const char *name)
{
    const char *value = getenv(name);

    if (value != NULL)
        git_env_add(e, "%s=%s", name, value);
}

void git_env_config(git_env *e, const char *key, const char *value)
{
    git_env_add(e, "GIT_CONFIG_KEY_%u=%s", e->n_config, key);
    git_env_add(e, "GIT_CONFIG_VALUE_%u=%s", e->n_config, value);
    e->n_config++;
}

void git_env_begin(git_env *e, git_job job, const char *home)
{
    for (size_t i = 0; i < ARRAY_LEN(ENVIRONMENT); i++)
        if (ENVIRONMENT[i].jobs & 1u << job)
            git_strings_add(&e->vars, mem_strdup(ENVIRONMENT[i].text));
    git_env_add(e, "HOME=%s", home);
    for (size_t i = 0; i < ARRAY_LEN(CONFIG); i++)
        if (CONFIG[i].jobs & 1u << job)
            git_env_config(e, CONFIG[i].key, CONFIG[i].value);
}

const char *const *git_env_end(git_env *e)
{
    git_env_add(e, "GIT_CONFIG_COUNT=%u", e->n_config);
    return (const char *const *)e->vars.at;
}

/*
 * A transport starts our own memfs-hook; one that was built with a sanitizer reserves more
 * address space than any honest limit has, so such a build (tests) goes without it there.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STARTS_SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define STARTS_SANITIZED true
#endif
#endif
#ifndef STARTS_SANITIZED
#define STARTS_SANITIZED false
#endif

static bool is_remote(git_job job)
{
    return (FOR_REMOTE & 1u << job) != 0;
}

process_spec git_env_spec(git_job job, const git_strings *argv, const git_env *e,
                          uint64_t file_size_bytes)
{
    bool is_unbounded = job == GIT_JOB_CREDENTIAL || (STARTS_SANITIZED && is_remote(job));

    return (process_spec){
        .argv = (const char *const *)argv->at,
        .env = (const char *const *)e->vars.at,
        .cpu_s = LIMITS[job].cpu_s,
        .address_space_bytes = is_unbounded ? 0 : 1u << 30, /* users' helpers may be any program */
        .file_size_bytes = file_size_bytes ? file_size_bytes : LIMITS[job].file_size_bytes,
        .n_files = 256,
    };
}

/* finding git */

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

char *git_env_find(void)
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

/* hashfile's words for ENOSPC are its own.  "remote:" is what the other side says of its disk. */
bool git_env_is_disk_full(memfs_str written)
{
    static const char *const words[] = { "No space left on device", "Out of diskspace",
                                         "Disk quota exceeded" };
    memfs_str line;

    while (written.len > 0) {
        if (!str_split(written, '\n', &line, &written)) {
            line = written;
            written.len = 0;
        }
        for (size_t i = 0; !str_starts_with(line, MEMFS_STR("remote:")) && i < ARRAY_LEN(words); i++)
            if (memmem(line.ptr, line.len, words[i], strlen(words[i])) != NULL)
                return true;
    }
    return false;
}
