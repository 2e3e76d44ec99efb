#include "store/transport_int.h"

#include "base/clock.h"
#include "base/mem.h"
#include "store/sidecar.h"
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define INCOMING "refs/memfs/incoming/"
#define MAX_FETCH_BYTES (256u << 20) /* as git_env.c has it for the job */

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* ---- refs by name ---- */

/*
 * A ref that may stand in a refspec: what a remote's HEAD is called, it chooses itself.  As git
 * check-ref-format has it, and below refs/ only.
 */
/* A name, or the id of what is wanted itself. */
static bool is_sane_ref(const char *ref)
{
    size_t n = strlen(ref);
    memfs_oid id;

    if (oid_parse(str_of(ref), &id))
        return true;
    if (!starts(ref, "refs/") || n > 255 || ref[n - 1] == '/' || ref[n - 1] == '.')
        return false;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)ref[i] <= ' ' || strchr("~^:?*[\\\x7F", ref[i]) != NULL)
            return false;
    return strstr(ref, "..") == NULL && strstr(ref, "//") == NULL && strstr(ref, "/.") == NULL &&
           strstr(ref, "/-") == NULL && strstr(ref, "@{") == NULL && strstr(ref, ".lock") == NULL;
}

/* ---- fetching ---- */

/* git leaves out what comes from a clone without its history, warns, and calls that a success. */
static memfs_code check_taken(const transport_run *r, transport_report *ret, memfs_error *err)
{
    if (r->tail.len == 0 || strstr(r->tail.ptr, "shallow roots are not allowed") == NULL)
        return MEMFS_OK;
    ret->cause = TRANSPORT_CAUSE_SHALLOW;
    snprintf(ret->said, sizeof(ret->said), "it is a shallow clone; 'git fetch --unshallow' there "
             "completes it");
    return memfs_fail(err, MEMFS_EUNAVAIL, "%s", ret->said);
}

/* A clone that somebody made with --depth: a merge needs the commits that it lacks. */
static bool is_shallow(const char *git_dir)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/shallow", git_dir);

    return access(path, F_OK) == 0;
}

/* RLIMIT_FSIZE ends what writes the pack. */
static bool is_past_bound(const transport_run *r)
{
    return r->tail.len > 0 && (strstr(r->tail.ptr, "died of signal 25") != NULL ||
                               strstr(r->tail.ptr, "File too large") != NULL);
}

/* It is not the remote's fault, and no word of git's, which name files of ours, says more. */
static bool is_own_fault(const transport_run *r, memfs_error *err)
{
    if (git_env_is_disk_full(buf_str(&r->tail)))
        memfs_fail(err, MEMFS_ENOSPACE, "the disk of the server is full");
    else if (r->tail.len > 0 && strstr(r->tail.ptr, "(unable to update local ref)") != NULL)
        memfs_fail(err, MEMFS_EINTERNAL, "what the remote sent could not be written here");
    else
        return false;
    return true;
}

static memfs_code explain_fetch(const transport_run *r, const transport_want *want,
                                transport_report *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *missing = mem_printf("couldn't find remote ref %s", want->ref);

    ret->is_empty = strcasestr(ret->said, missing) != NULL;
    if (ret->is_empty)
        return memfs_fail(err, MEMFS_ENOTFOUND, strcmp(want->ref, STORE_MAIN) == 0
                                                    ? "the remote has no main"
                                                    : "the remote has no such ref");
    if (is_past_bound(r)) {
        ret->cause = TRANSPORT_CAUSE_TOO_LARGE;
        snprintf(ret->said, sizeof(ret->said), "it sends more than %llu bytes at once",
                 (unsigned long long)(want->max_bytes > 0 ? want->max_bytes : MAX_FETCH_BYTES));
        return memfs_fail(err, MEMFS_ELIMIT, "could not fetch from the remote: %s", ret->said);
    }
    if (want->is_throw_away && is_own_fault(r, err))
        return err->code;
    return memfs_context(err, "could not fetch from the remote");
}

memfs_code transport_fetch_ref(const char *git_dir, const transport_target *t,
                               const transport_want *want, int64_t deadline_ms,
                               transport_report *ret, memfs_error *err)
{
    const char *depth =
        want->is_depth_one ? "--depth=1" : is_shallow(git_dir) ? "--unshallow" : NULL;
    const char *args[] = {
        "fetch", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--no-progress",
        "--no-recurse-submodules", "--no-show-forced-updates", "--refmap=",
        depth, NULL,
    };
    _cleanup_(transport_shared_end) char *shared = NULL;
    transport_target through = *t;
    _cleanup_(transport_run_dispose) transport_run r = TRANSPORT_RUN_INIT;
    _cleanup_(mem_freep) char *refspec = mem_printf("+%s:%s", want->ref, want->incoming_ref);
    _cleanup_(mem_freep) char *with =
        want->with_ref != NULL ? mem_printf("+%s:%s", want->with_ref, want->with_incoming_ref)
                               : NULL;
    const char *refs[] = { refspec, with, NULL };
    memfs_code rc;

    *ret = (transport_report){ .said = "" };
    if (!starts(want->incoming_ref, INCOMING) ||
        (with != NULL && !starts(want->with_incoming_ref, INCOMING)))
        return memfs_fail(err, MEMFS_EINVALID, "a fetch goes to " INCOMING " only");
    if (!is_sane_ref(want->ref) || (with != NULL && !is_sane_ref(want->with_ref)))
        return memfs_fail(err, MEMFS_EINVALID, "that is no name of a branch");
    if (t->is_shared) {
        rc = transport_shared_begin(git_dir, t->url, &shared, err);
        ret->is_empty = rc == MEMFS_ENOTFOUND;
        if (rc < 0)
            return memfs_context(err, "could not fetch from the remote");
        through.url = shared;
    }
    r.t = &through;
    r.job = GIT_JOB_FETCH;
    r.is_throw_away = want->is_throw_away;
    rc = transport_prepare(&r, git_dir, args, refs, deadline_ms, ret, err);
    if (rc < 0)
        return memfs_context(err, "could not fetch from the remote");
    rc = transport_execute(&r, want->max_bytes, deadline_ms, ret, err);
    if (rc == MEMFS_OK)
        rc = check_taken(&r, ret, err);
    return rc < 0 ? explain_fetch(&r, want, ret, err) : MEMFS_OK;
}

memfs_code transport_fetch(const char *git_dir, const transport_target *t, const char *incoming_ref,
                           int64_t deadline_ms, transport_report *ret, memfs_error *err)
{
    transport_want want = { .ref = STORE_MAIN, .incoming_ref = incoming_ref };

    return transport_fetch_ref(git_dir, t, &want, deadline_ms, ret, err);
}

/* ---- pushing ---- */

/* What is said of the ref decides, whatever the exit status (F04). */
static memfs_code judge_push(const transport_run *r, const char *ref, memfs_code rc,
                             transport_report *ret, memfs_error *err)
{
    const char *secrets[TRANSPORT_N_SECRETS];

    transport_secrets(r, secrets);
    if (!transport_read_push(ref, buf_str(&r->out), buf_str(&r->tail), secrets,
                             ARRAY_LEN(secrets), ret))
        return rc < 0 ? memfs_context(err, "could not push to the remote")
                      : memfs_fail(err, MEMFS_EUNAVAIL, "the remote did not say what became of the "
                                                        "push");
    if (ret->is_rejected)
        return memfs_fail(err, MEMFS_ECONFLICT, "the remote refused the push: %s", ret->said);
    return rc < 0 ? memfs_context(err, "could not push to the remote") : MEMFS_OK;
}

memfs_code transport_push_ref(const char *git_dir, const transport_target *t, const char *ref,
                              const memfs_oid *id, int64_t deadline_ms, transport_report *ret,
                              memfs_error *err)
{
    static const char *const args[] = {
        "push", "--porcelain", "--no-verify", "--no-progress", "--no-follow-tags", "--no-signed",
        "--no-force-with-lease", "--recurse-submodules=no", NULL,
    };
    _cleanup_(transport_run_dispose) transport_run r = TRANSPORT_RUN_INIT;
    _cleanup_(mem_freep) char *refspec = NULL;
    const char *refs[] = { NULL, NULL };
    char hex[MEMFS_OID_HEX + 1];
    memfs_code rc;

    *ret = (transport_report){ .said = "" };
    if (strcmp(ref, STORE_MAIN) != 0 && strcmp(ref, STORE_META) != 0)
        return memfs_fail(err, MEMFS_EINVALID, "only main and the sidecar are pushed");
    r.t = t;
    r.job = GIT_JOB_PUSH;
    oid_hex(id, hex);
    refs[0] = refspec = mem_printf("%s:%s", hex, ref);
    rc = transport_prepare(&r, git_dir, args, refs, deadline_ms, ret, err);
    if (rc < 0)
        return rc;
    rc = transport_execute(&r, 0, deadline_ms, ret, err);
    return judge_push(&r, ref, rc, ret, err);
}

memfs_code transport_push(const char *git_dir, const transport_target *t, const memfs_oid *id,
                          int64_t deadline_ms, transport_report *ret, memfs_error *err)
{
    return transport_push_ref(git_dir, t, STORE_MAIN, id, deadline_ms, ret, err);
}

/* ---- looking ---- */

/* "ref: refs/heads/main\tHEAD" or "<id>\t<ref>".  Patterns of ls-remote match the ends of names:
 * only the exact ones count. */
static void read_listed(memfs_str left, memfs_str name, transport_refs *ret)
{
    static const memfs_str symbolic = MEMFS_STR("ref: ");

    if (str_equal(name, MEMFS_STR("HEAD")) && str_starts_with(left, symbolic)) {
        snprintf(ret->head_ref, sizeof(ret->head_ref), "%.*s", (int)(left.len - symbolic.len),
                 left.ptr + symbolic.len);
        if (left.len - symbolic.len >= sizeof(ret->head_ref) || !is_sane_ref(ret->head_ref) ||
            !starts(ret->head_ref, "refs/heads/"))
            ret->head_ref[0] = '\0';
    } else if (str_equal(name, MEMFS_STR("HEAD"))) {
        (void)oid_parse(left, &ret->head);
    } else if (str_equal(name, MEMFS_STR(STORE_MAIN))) {
        (void)oid_parse(left, &ret->main);
    } else if (str_equal(name, MEMFS_STR(STORE_META))) {
        (void)oid_parse(left, &ret->meta);
    }
}

/* Without git, which would read more of it than its refs. */
static memfs_code look_at_shared(const transport_target *t, transport_refs *ret,
                                 transport_report *report, memfs_error *err)
{
    memfs_code rc = store_tip_at(t->url, &ret->main, err);

    *report = (transport_report){ .is_empty = rc == MEMFS_ENOTFOUND };
    if (rc == MEMFS_OK || rc == MEMFS_ENOTFOUND)
        return MEMFS_OK;
    report->cause = TRANSPORT_CAUSE_OTHER;
    snprintf(report->said, sizeof(report->said), "main there cannot be read");
    return memfs_fail(err, MEMFS_EUNAVAIL, "could not ask the remote: %s", report->said);
}

static memfs_code look(const transport_target *t, const char *const *args, const char *const *refs,
                       int64_t deadline_ms, transport_refs *ret, transport_report *report,
                       memfs_error *err)
{
    _cleanup_(transport_run_dispose) transport_run r = TRANSPORT_RUN_INIT;
    memfs_str listed, line, left, name;
    memfs_code rc;

    *ret = (transport_refs){ .head_ref = "" };
    if (t->is_shared)
        return look_at_shared(t, ret, report, err);
    r.t = t;
    r.job = GIT_JOB_LS;
    rc = transport_prepare(&r, NULL, args, refs, deadline_ms, report, err);
    if (rc == MEMFS_OK)
        rc = transport_execute(&r, 0, deadline_ms, report, err);
    if (rc < 0)
        return memfs_context(err, "could not ask the remote");
    listed = buf_str(&r.out);
    while (str_split(listed, '\n', &line, &listed))
        if (str_split(line, '\t', &left, &name))
            read_listed(left, name, ret);
    report->is_empty = oid_is_zero(&ret->main);
    return MEMFS_OK;
}

memfs_code transport_ls_refs(const transport_target *t, int64_t deadline_ms, transport_refs *ret,
                             transport_report *report, memfs_error *err)
{
    static const char *const args[] = { "ls-remote", "--quiet", "--symref", NULL };
    static const char *const refs[] = { "HEAD", STORE_MAIN, STORE_META, NULL };

    return look(t, args, refs, deadline_ms, ret, report, err);
}

memfs_code transport_ls(const transport_target *t, int64_t deadline_ms, memfs_oid *ret,
                        transport_report *report, memfs_error *err)
{
    static const char *const args[] = { "ls-remote", "--quiet", NULL };
    static const char *const refs[] = { STORE_MAIN, NULL };
    transport_refs all;
    memfs_code rc = look(t, args, refs, deadline_ms, &all, report, err);

    if (rc < 0)
        return rc;
    if (report->is_empty)
        return memfs_fail(err, MEMFS_ENOTFOUND, "the remote has no main");
    *ret = all.main;
    return MEMFS_OK;
}

/* ---- the user's own helpers ---- */

/* What helpers need to find their stores, their programs and their desktop. */
static const char *const HELPER_VARIABLES[] = {
    "PATH", "USER", "LOGNAME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME",
    "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK", "GNUPGHOME",
    "PASSWORD_STORE_DIR", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM",
    "GH_CONFIG_DIR", "GH_TOKEN", "GITHUB_TOKEN", "GCM_CREDENTIAL_STORE",
};

static char *take_value(memfs_str answer, const char *key)
{
    memfs_str line, name, value;

    while (str_split(answer, '\n', &line, &answer))
        if (str_split(line, '=', &name, &value) && str_equal(name, str_of(key)) && value.len > 0)
            return mem_strndup(value.ptr, value.len);
    return NULL;
}

static void write_question(memfs_buf *out, const char *url)
{
    memfs_str host = transport_host_of(url);
    const char *path = host.ptr + host.len;

    buf_printf(out, "protocol=%s\nhost=", transport_protocol(transport_kind_of(url)));
    buf_add_str(out, host);
    if (path[0] == '/' && path[1] != '\0')
        buf_printf(out, "\npath=%s", path + 1);
    buf_puts(out, "\n\n");
}

memfs_code transport_ask_helpers(const char *url, int64_t deadline_ms, char **ret_username,
                                 char **ret_secret, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf question = MEMFS_BUF_INIT(16384);
    _cleanup_(transport_run_dispose) transport_run r = TRANSPORT_RUN_INIT;
    int64_t left_ms = deadline_ms - clock_mono_ms();
    memfs_error quoted;
    process_spec spec;
    memfs_code rc = transport_find_git(&r.git, err);

    *ret_username = *ret_secret = NULL;
    if (rc < 0)
        return rc;
    git_env_begin(&r.env, GIT_JOB_CREDENTIAL,
                  getenv("HOME") != NULL ? getenv("HOME") : TRANSPORT_NOWHERE);
    for (size_t i = 0; i < ARRAY_LEN(HELPER_VARIABLES); i++)
        git_env_pass(&r.env, HELPER_VARIABLES[i]);
    git_env_end(&r.env);
    git_strings_add(&r.argv, mem_strdup(r.git));
    git_strings_add(&r.argv, mem_strdup("credential"));
    git_strings_add(&r.argv, mem_strdup("fill"));
    write_question(&question, url);
    spec = git_env_spec(GIT_JOB_CREDENTIAL, &r.argv, &r.env, 0);
    if (left_ms > 0 && process_run(&spec, buf_str(&question), &r.out, &r.tail, left_ms, &quoted) ==
                           MEMFS_OK) {
        *ret_username = take_value(buf_str(&r.out), "username");
        *ret_secret = take_value(buf_str(&r.out), "password");
    }
    explicit_bzero(r.out.ptr, r.out.cap);
    if (*ret_username != NULL && *ret_secret != NULL)
        return MEMFS_OK;
    transport_wipe(TAKE_PTR(*ret_username));
    transport_wipe(TAKE_PTR(*ret_secret));
    return memfs_fail(err, MEMFS_ENOTFOUND, "git's credential helpers have nothing for this host");
}
