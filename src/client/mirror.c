#include "client/mirror.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "client/backend.h"
#include "store/gitconfig.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Only main travels, and always its newest commit, so what is queued is one fact: "the mirror lacks
 * something". Three files below <common git dir>/memfs/ say it:
 *
 *   mirror-queue    "<unix time>" a line for each commit that asked for it
 *   mirror-running  the same file while a run is at it: a commit made meanwhile begins a new queue,
 *                   so that none falls between the push and the end of the run
 *   mirror-next     "<unix time> <tries> <cause>": not before then; gone after a success
 *
 * Either of the first two means that something waits, whoever was killed when.  What happened is
 * appended to the client's own .git/memory-repository-push.log, in the client's form (contract
 * client 5).
 */

#define URL_KEY "letta.memoryRepository.url"
#define QUEUE "mirror-queue"
#define RUNNING "mirror-running"
#define NEXT "mirror-next"
#define FIRST_WAIT_S 10
#define MAX_WAIT_S 900
#define LOG_NAME "memory-repository-push.log"
#define MAX_LOG_BYTES (256 * 1024)

static int64_t now_s(void)
{
    return clock_wall_us() / 1000000;
}

/* NULL: it is not set. Caller frees. */
static char *configured(const checkout *c, const char *key)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/config", checkout_common_dir(c));
    _cleanup_(gitconfig_closep) gitconfig *config = NULL;
    memfs_error ignored;
    const char *value;

    if (gitconfig_open(path, &config, &ignored) < 0)
        return NULL;
    value = gitconfig_get(config, key);
    return value != NULL && value[0] != '\0' ? mem_strdup(value) : NULL;
}

/* the queue */

static memfs_code append(const char *path, const char *text, bool is_synced, memfs_error *err)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    ssize_t n = (ssize_t)strlen(text);
    memfs_code rc = MEMFS_OK;

    if (fd < 0)
        return memfs_fail_errno(err, "could not open '%s'", path);
    if (write(fd, text, (size_t)n) != n || (is_synced && fsync(fd) < 0))
        rc = memfs_fail_errno(err, "could not write '%s'", path);
    close(fd);
    return rc;
}

memfs_code mirror_enqueue(checkout *c, memfs_error *err)
{
    _cleanup_(mem_freep) char *url = configured(c, URL_KEY);
    _cleanup_(mem_freep) char *path = NULL;
    char line[32];
    bool is_new;
    memfs_code rc;

    if (url == NULL)
        return MEMFS_OK;
    path = checkout_note_path(c, QUEUE);
    is_new = !fs_exists(path);
    snprintf(line, sizeof(line), "%lld\n", (long long)now_s());
    rc = append(path, line, true, err);
    if (rc == MEMFS_OK && is_new) {
        _cleanup_(mem_freep) char *folder = mem_printf("%s/memfs", checkout_common_dir(c));

        rc = fs_sync_dir(folder, err);
    }
    return rc;
}

static size_t count_lines(const char *path)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1u << 20);
    memfs_error ignored;
    size_t n = 0;

    if (fs_read(path, &text, &ignored) == MEMFS_ENOTFOUND)
        return 0;
    for (size_t i = 0; i < text.len; i++)
        n += text.ptr[i] == '\n';
    return n > 0 ? n : 1;
}

size_t mirror_queued(const checkout *c)
{
    _cleanup_(mem_freep) char *queue = checkout_note_path(c, QUEUE);
    _cleanup_(mem_freep) char *running = checkout_note_path(c, RUNNING);

    return count_lines(queue) + (fs_exists(running) ? count_lines(running) : 0);
}

mirror_next mirror_next_try(const checkout *c)
{
    _cleanup_(mem_freep) char *path = checkout_note_path(c, NEXT);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1024);
    memfs_str at, tries, cause, end;
    mirror_next next = { .at_s = 0 };
    memfs_error ignored;
    uint64_t at_s = 0, n_tries = 0;

    if (fs_read(path, &text, &ignored) < 0 || !str_split(buf_str(&text), ' ', &at, &tries) ||
        !str_split(tries, ' ', &tries, &cause) || !str_split(cause, '\n', &cause, &end) ||
        !str_to_u64(at, INT64_MAX, &at_s) || !str_to_u64(tries, 1000, &n_tries))
        return next;
    next.n_tries = (unsigned)n_tries;
    if ((int64_t)at_s <= now_s() + MAX_WAIT_S) /* else the clock was set back */
        next.at_s = (int64_t)at_s;
    snprintf(next.cause, sizeof(next.cause), "%.*s", (int)cause.len, cause.ptr);
    return next;
}

static void put_off(const checkout *c, unsigned n_tries, const char *cause)
{
    _cleanup_(mem_freep) char *path = checkout_note_path(c, NEXT);
    int64_t wait_s = FIRST_WAIT_S;
    memfs_error ignored;
    uint8_t chance;
    char line[300];
    int n;

    for (unsigned i = 0; i < n_tries && wait_s < MAX_WAIT_S; i++)
        wait_s *= 2;
    wait_s = wait_s < MAX_WAIT_S ? wait_s : MAX_WAIT_S;
    hash_random(&chance, 1);
    n = snprintf(line, sizeof(line), "%lld %u %.200s\n",
                 (long long)(now_s() + wait_s - wait_s * chance / 512), n_tries + 1, cause);
    if (fs_write_atomic(path, str_make(line, (size_t)n), 0600, &ignored) < 0)
        return; /* then the next run tries at once */
}

/* one push */

static void log_push(const checkout *c, const memfs_oid *main, const char *said, int status)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/" LOG_NAME, checkout_git_dir(c));
    char iso[CLOCK_ISO_LEN], hex[MEMFS_OID_HEX + 1], text[600];
    memfs_error ignored;
    struct stat st;

    if (stat(path, &st) == 0 && st.st_size > MAX_LOG_BYTES) {
        _cleanup_(mem_freep) char *old = mem_printf("%s.old", path);

        if (rename(path, old) < 0)
            return;
    }
    clock_iso(clock_wall_us() / 1000000 * 1000000, iso);
    oid_hex(main, hex);
    snprintf(text, sizeof(text), "--- %s %.7s on main ---\n%s%sexit=%d\n", iso, hex, said,
             said[0] != '\0' ? "\n" : "", status);
    if (append(path, text, false, &ignored) < 0)
        return; /* a log for people: the push counts */
}

/*
 * The mirror's own credentials (also what `doctor --fix` took out of its address, which is kept for
 * the agent) or the user's helpers.  The Letta key is not even known here, nor is the remote's
 * token.
 */
static memfs_code aim(const settings *s, const char *url, const char *agent_id, remote_target *ret,
                      memfs_error *err)
{
    credential_query q = { .url = &ret->url,
                           .agent_id = agent_id,
                           .memfs_home = setting_text(s, SETTING_HOME),
                           .systemd_dir = getenv("CREDENTIALS_DIRECTORY"),
                           .is_not_the_remote = true,
                           .may_ask_git = true };
    memfs_code rc = url_parse(url, &ret->url, err);

    if (rc < 0)
        return memfs_context(err, URL_KEY);
    ret->ca_file = setting_text(s, SETTING_CA_FILE);
    ret->ssh_key = setting_text(s, SETTING_SSH_KEY);
    ret->ssh_known_hosts = setting_text(s, SETTING_SSH_KNOWN_HOSTS);
    ret->may_http = ret->url.kind == URL_HTTP && backend_may_use(s, &ret->url);
    if (ret->url.kind == URL_HTTP && !ret->may_http)
        return memfs_fail(err, MEMFS_EINVALID,
                          URL_KEY ": http:// to '%s' is not allowed; use https, or set MEMFS_ALLOW_HTTP",
                          ret->url.host);
    if (ret->url.secret != NULL) {
        ret->cred = (credential){ CREDENTIAL_SECRETS,
                                  mem_strdup(ret->url.username ? ret->url.username : "memfs"),
                                  mem_strdup(ret->url.secret) };
        return MEMFS_OK;
    }
    rc = credential_find(&q, &ret->cred, err);
    ret->ask_git_helpers = ret->cred.secret == NULL;
    return rc;
}

static memfs_code push(const settings *s, checkout *c, const char *url, int64_t budget_ms,
                       memfs_error *err)
{
    _cleanup_(remote_target_dispose) remote_target target = REMOTE_TARGET_INIT;
    _cleanup_(mem_freep) char *agent_id = configured(c, "letta.agentId");
    transport_report said = { .said = "" };
    transport_target transport;
    memfs_oid main;
    memfs_code rc = checkout_ref(c, STORE_MAIN, &main, err);

    if (rc < 0)
        return rc;
    rc = aim(s, url, agent_id, &target, err);
    if (rc < 0) {
        log_push(c, &main, err->msg, 128);
        return rc;
    }
    remote_transport_target(&target, &transport);
    rc = transport_push(checkout_common_dir(c), &transport, &main, clock_mono_ms() + budget_ms,
                        &said, err);
    log_push(c, &main, said.said, rc == MEMFS_OK ? 0 : 1);
    return rc;
}

static memfs_code run_turn(const settings *s, checkout *c, bool is_forced_now, int64_t budget_ms,
                           memfs_error *err)
{
    _cleanup_(mem_freep) char *url = configured(c, URL_KEY);
    _cleanup_(mem_freep) char *queue = checkout_note_path(c, QUEUE);
    _cleanup_(mem_freep) char *running = checkout_note_path(c, RUNNING);
    _cleanup_(mem_freep) char *next_path = checkout_note_path(c, NEXT);
    mirror_next next = mirror_next_try(c);
    memfs_code rc;

    if (url != NULL && !is_forced_now && now_s() < next.at_s)
        return memfs_fail(err, MEMFS_EUNAVAIL, "the mirror is tried again in %lld s",
                          (long long)(next.at_s - now_s()));
    if (rename(queue, running) < 0 && !fs_exists(running))
        return MEMFS_OK;
    rc = url != NULL ? push(s, c, url, budget_ms, err) : MEMFS_OK; /* the mirror was taken away */
    if (rc < 0) {
        put_off(c, next.n_tries, err->msg);
        err->code = MEMFS_EUNAVAIL;
        return memfs_context(err, "the mirror");
    }
    unlink(running);
    unlink(next_path);
    return MEMFS_OK;
}

memfs_code mirror_run(const settings *s, checkout *c, bool is_forced_now, int64_t budget_ms,
                      memfs_error *err)
{
    _cleanup_(fs_unlock) fs_lock lock = FS_LOCK_INIT;
    _cleanup_(mem_freep) char *path = checkout_note_path(c, "mirror.lock");
    memfs_code rc;

    if (mirror_queued(c) == 0)
        return MEMFS_OK;
    rc = fs_lock_take(path, &lock, err);
    if (rc < 0)
        return rc; /* another run is at it: EUNAVAIL */
    return run_turn(s, c, is_forced_now, budget_ms, err);
}
