#include "store/git_child.h"

#include "base/mem.h"
#include "store/store_int.h"

#include <stdio.h>
#include <stdlib.h>

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

static void build_environment(const store *s, git_job job, const git_child_options *o, git_env *e)
{
    git_env_begin(e, job, s->empty);
    git_env_add(e, "GIT_DIR=%s", o->git_dir);
    if (o->object_dir != NULL)
        git_env_add(e, "GIT_OBJECT_DIRECTORY=%s", o->object_dir);
    if (o->alternate_dir != NULL)
        git_strings_add(&e->vars, alternate_variable(o->alternate_dir));
    if (protocol_is_known(o->protocol))
        git_env_add(e, "GIT_PROTOCOL=%s", o->protocol);
    git_env_config(e, "safe.directory", o->git_dir);
    git_env_end(e);
}

static void build_argv(const store *s, const git_child_options *o, git_strings *argv)
{
    git_strings_add(argv, mem_strdup(s->git));
    for (size_t i = 0; o->args[i] != NULL; i++)
        git_strings_add(argv, mem_strdup(o->args[i]));
}

memfs_code git_child_start(const store *s, git_job job, const git_child_options *o, process *ret,
                           memfs_error *err)
{
    _cleanup_(git_strings_dispose) git_strings argv = GIT_STRINGS_INIT;
    _cleanup_(git_env_dispose) git_env env = GIT_ENV_INIT;
    uint64_t reader = readers_begin(s->readers, o->git_dir);
    process_spec spec;
    memfs_code rc;

    build_argv(s, o, &argv);
    build_environment(s, job, o, &env);
    spec = git_env_spec(job, &argv, &env, o->file_size_bytes);
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
    _cleanup_(git_strings_dispose) git_strings argv = GIT_STRINGS_INIT;
    _cleanup_(git_env_dispose) git_env env = GIT_ENV_INIT;
    uint64_t reader = readers_begin(s->readers, o->git_dir);
    process_spec spec;
    memfs_code rc;

    build_argv(s, o, &argv);
    build_environment(s, job, o, &env);
    spec = git_env_spec(job, &argv, &env, o->file_size_bytes);
    rc = process_run(&spec, o->input, out, err_tail, timeout_ms, err);
    readers_end(s->readers, reader);
    return rc;
}

memfs_code git_child_pack_name(memfs_str said, char ret[MEMFS_OID_HEX + 1], memfs_error *err)
{
    memfs_oid id;

    ret[0] = '\0';
    if (said.len == 0)
        return MEMFS_OK;
    if (said.len < MEMFS_OID_HEX || !oid_parse(str_make(said.ptr, MEMFS_OID_HEX), &id))
        return memfs_fail(err, MEMFS_EINTERNAL, "git does not say what pack it wrote");
    oid_hex(&id, ret);
    return MEMFS_OK;
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

memfs_code git_child_find(const char *empty_home, char **ret_git, memfs_error *err)
{
    _cleanup_(mem_freep) char *git = git_env_find();
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
