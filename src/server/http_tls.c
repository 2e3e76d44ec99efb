/*
 * http_tls.c - the certificate that the TCP front shows, and how it is replaced.
 *
 * libmicrohttpd runs TLS by GnuTLS and asks a callback for certificate and key at each handshake.
 * So a new pair is shown by the next handshake, and connections that are open stay as they are.
 * The callback has no argument of ours: the pair is the process's, and one server a process may
 * have TLS.
 *
 *     load      both files are read, parsed and compared; the key's mode is judged on the opened
 *               file.  What fails there leaves the old pair in place
 *     refresh   both files are looked at by stat(2), once a second; a pair is loaded when they
 *               differ from what was tried last and have kept still since the look before, as a
 *               renewal writes one file after the other
 *
 * A handshake borrows the pair until it ends, and the reaper ends those that take longer than a
 * head may; so a pair that was replaced is freed not at once but at the first refresh KEEP_MS
 * later.
 *
 * Locks: `shown.mutex`, for the pointers; loading is done by one thread outside of it.
 */
#include "server/http_int.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILE_BYTES (1u << 20)
#define MAX_CHAIN 16u
#define KEEP_MS 3600000
#define WARN_DAYS 14
#define KEY_ID_BYTES 32
#define FORBIDDEN_KEY_BITS 027 /* others may not read it, nor the group write it */

typedef struct pair {
    struct pair *next; /* of those that were replaced */
    int64_t replaced_ms;
    gnutls_pcert_st chain[MAX_CHAIN];
    unsigned n_chain;
    gnutls_privkey_t key;
    time_t ends_s;
} pair;

static struct {
    pthread_mutex_t mutex;
    pair *now, *before;
} shown = { .mutex = PTHREAD_MUTEX_INITIALIZER };

/* Enough of stat(2) to tell one state of the files from another. */
typedef struct file_mark {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec changed;
} file_mark;

typedef struct files_mark {
    file_mark cert, key;
} files_mark;

struct http_tls {
    char *cert_path, *key_path;
    files_mark seen, tried;
};

/* ---- pairs ---- */

static void pair_free(pair *p)
{
    if (p == NULL)
        return;
    for (unsigned i = 0; i < p->n_chain; i++)
        gnutls_pcert_deinit(&p->chain[i]);
    if (p->key != NULL)
        gnutls_privkey_deinit(p->key);
    free(p);
}

static void pair_freep(pair **p)
{
    pair_free(*p);
}

static void fd_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

/* The text of a file; *st is of the very file that was read. */
static memfs_code read_file(const char *path, const char *what, memfs_buf *out, struct stat *st,
                            memfs_error *err)
{
    _cleanup_(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    ssize_t n = 1;

    if (fd < 0 || fstat(fd, st) < 0)
        return memfs_fail_errno(err, "could not read the %s '%s'", what, path);
    if (!S_ISREG(st->st_mode))
        return memfs_fail(err, MEMFS_EINVALID, "the %s '%s' is not a file", what, path);
    while (n > 0) {
        char *room = buf_reserve(out, 16 << 10);

        if (room == NULL)
            return memfs_fail(err, MEMFS_ELIMIT, "the %s '%s' is too large for one", what, path);
        n = read(fd, room, 16 << 10);
        if (n < 0)
            return memfs_fail_errno(err, "could not read the %s '%s'", what, path);
        buf_grew(out, (size_t)n);
    }
    return MEMFS_OK;
}

static gnutls_datum_t datum_of(const memfs_buf *b)
{
    return (gnutls_datum_t){ (unsigned char *)b->ptr, (unsigned)b->len };
}

static memfs_code load_chain(const char *path, pair *p, uint8_t key_id[KEY_ID_BYTES],
                             memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MAX_FILE_BYTES);
    gnutls_x509_crt_t *crts = NULL;
    size_t n_id = KEY_ID_BYTES;
    unsigned n = 0;
    struct stat st;
    memfs_code rc = read_file(path, "certificate", &text, &st, err);
    gnutls_datum_t pem = datum_of(&text);
    int fault;

    if (rc < 0)
        return rc;
    fault = gnutls_x509_crt_list_import2(&crts, &n, &pem, GNUTLS_X509_FMT_PEM, 0);
    if (fault < 0)
        return memfs_fail(err, MEMFS_EINVALID, "'%s' holds no certificate as PEM: %s", path,
                          gnutls_strerror(fault));
    if (n == 0 || n > MAX_CHAIN) {
        rc = memfs_fail(err, MEMFS_EINVALID, "'%s' holds %u certificates, not 1 to %u", path, n,
                        MAX_CHAIN);
    } else {
        p->ends_s = gnutls_x509_crt_get_expiration_time(crts[0]);
        p->n_chain = n;
        fault = gnutls_x509_crt_get_key_id(crts[0], GNUTLS_KEYID_USE_SHA256, key_id, &n_id);
        if (fault == 0)
            fault = gnutls_pcert_import_x509_list(p->chain, crts, &p->n_chain,
                                                  GNUTLS_X509_CRT_LIST_SORT);
        if (fault < 0) {
            p->n_chain = 0;
            rc = memfs_fail(err, MEMFS_EINVALID, "the certificates of '%s' are no chain: %s", path,
                            gnutls_strerror(fault));
        }
    }
    for (unsigned i = 0; i < n; i++)
        gnutls_x509_crt_deinit(crts[i]);
    gnutls_free(crts);
    return rc;
}

static memfs_code parse_key(const char *path, const memfs_buf *text, pair *p, memfs_error *err)
{
    gnutls_datum_t pem = datum_of(text);
    int fault = gnutls_privkey_init(&p->key);

    if (fault == 0)
        fault = gnutls_privkey_import_x509_raw(p->key, &pem, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (fault < 0)
        return memfs_fail(err, MEMFS_EINVALID, "'%s' holds no private key as PEM without a "
                          "passphrase: %s", path, gnutls_strerror(fault));
    return MEMFS_OK;
}

static memfs_code load_key(const char *path, pair *p, memfs_error *err)
{
    memfs_buf text = MEMFS_BUF_INIT(MAX_FILE_BYTES);
    struct stat st;
    memfs_code rc = read_file(path, "private key", &text, &st, err);

    if (rc == MEMFS_OK && (st.st_mode & FORBIDDEN_KEY_BITS) != 0)
        rc = memfs_fail(err, MEMFS_EDENIED, "the private key '%s' is open to others (mode %04o): "
                        "chmod 600 it", path, (unsigned)(st.st_mode & 07777));
    if (rc == MEMFS_OK)
        rc = parse_key(path, &text, p, err);
    hash_wipe(text.ptr, text.len);
    buf_dispose(&text);
    return rc;
}

static memfs_code check_match(const http_tls *t, const pair *p,
                              const uint8_t cert_id[KEY_ID_BYTES], memfs_error *err)
{
    uint8_t key_id[KEY_ID_BYTES];
    size_t n_id = sizeof(key_id);
    gnutls_pubkey_t public;
    bool is_same = false;

    if (gnutls_pubkey_init(&public) < 0)
        return memfs_fail(err, MEMFS_EINTERNAL, "GnuTLS could not make a key");
    is_same = gnutls_pubkey_import_privkey(public, p->key, 0, 0) == 0 &&
              gnutls_pubkey_get_key_id(public, GNUTLS_KEYID_USE_SHA256, key_id, &n_id) == 0 &&
              memcmp(key_id, cert_id, KEY_ID_BYTES) == 0;
    gnutls_pubkey_deinit(public);
    if (is_same)
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_EINVALID, "the private key '%s' is not the one of the certificate "
                      "'%s'", t->key_path, t->cert_path);
}

static memfs_code load_pair(const http_tls *t, pair **ret, memfs_error *err)
{
    _cleanup_(pair_freep) pair *p = mem_alloc(sizeof(*p));
    uint8_t cert_id[KEY_ID_BYTES];
    memfs_code rc;

    rc = load_chain(t->cert_path, p, cert_id, err);
    if (rc == MEMFS_OK)
        rc = load_key(t->key_path, p, err);
    if (rc == MEMFS_OK)
        rc = check_match(t, p, cert_id, err);
    if (rc == MEMFS_OK)
        *ret = TAKE_PTR(p);
    return rc;
}

static void log_pair(const pair *p)
{
    int64_t left_s = (int64_t)p->ends_s - clock_wall_us() / 1000000;
    char until[CLOCK_ISO_LEN];

    clock_iso((int64_t)p->ends_s * 1000000, until);
    if (left_s < 0)
        log_event(LOG_WARN, "tls_certificate_expired", "since", until, NULL);
    else if (left_s < WARN_DAYS * 86400)
        log_event(LOG_WARN, "tls_certificate_expires", "until", until, NULL);
    else
        log_event(LOG_INFO, "tls_certificate", "until", until, NULL);
}

/* ---- what is shown ---- */

/* Pairs that no handshake can be using any more. */
static pair *take_old_locked(int64_t now_ms)
{
    pair **at = &shown.before, *old;

    while (*at != NULL && now_ms - (*at)->replaced_ms < KEEP_MS)
        at = &(*at)->next;
    old = *at; /* the list is ordered: the latest first */
    *at = NULL;
    return old;
}

static void free_list(pair *p)
{
    while (p != NULL) {
        pair *next = p->next;

        pair_free(p);
        p = next;
    }
}

static void show(pair *p)
{
    int64_t now_ms = clock_mono_ms();
    pair *old;

    pthread_mutex_lock(&shown.mutex);
    old = take_old_locked(now_ms);
    if (shown.now != NULL) {
        shown.now->replaced_ms = now_ms;
        shown.now->next = shown.before;
        shown.before = shown.now;
    }
    shown.now = p;
    pthread_mutex_unlock(&shown.mutex);
    free_list(old);
}

/* Runs in a handshake, on an event thread. */
static int hand_out(gnutls_session_t session, const gnutls_datum_t *names, int n_names,
                    const gnutls_pk_algorithm_t *kinds, int n_kinds, gnutls_pcert_st **ret_chain,
                    unsigned *ret_n, gnutls_privkey_t *ret_key)
{
    pair *p;

    (void)session, (void)names, (void)n_names, (void)kinds, (void)n_kinds;
    pthread_mutex_lock(&shown.mutex);
    p = shown.now;
    pthread_mutex_unlock(&shown.mutex);
    if (p == NULL)
        return -1;
    *ret_chain = p->chain;
    *ret_n = p->n_chain;
    *ret_key = p->key;
    return 0;
}

void *http_tls_callback(void)
{
    static gnutls_certificate_retrieve_function2 *const fn = hand_out;
    void *as_option;

    memcpy(&as_option, &fn, sizeof(as_option)); /* the library's option takes it this way */
    return as_option;
}

/* ---- life ---- */

static file_mark mark_of(const char *path)
{
    file_mark mark;
    struct stat st;

    memset(&mark, 0, sizeof(mark)); /* its padding too: marks are compared as bytes */
    if (stat(path, &st) == 0) {
        mark.dev = st.st_dev;
        mark.ino = st.st_ino;
        mark.size = st.st_size;
        mark.changed = st.st_ctim; /* also a chmod counts, which may be what was wanted */
    }
    return mark;
}

static files_mark mark_files(const http_tls *t)
{
    files_mark mark;

    memset(&mark, 0, sizeof(mark));
    mark.cert = mark_of(t->cert_path);
    mark.key = mark_of(t->key_path);
    return mark;
}

static bool is_same(const files_mark *a, const files_mark *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

memfs_code http_tls_open(const char *cert_path, const char *key_path, http_tls **ret,
                         memfs_error *err)
{
    http_tls *t;
    memfs_code rc;
    bool is_taken;
    pair *p;

    pthread_mutex_lock(&shown.mutex);
    is_taken = shown.now != NULL;
    pthread_mutex_unlock(&shown.mutex);
    if (is_taken)
        return memfs_fail(err, MEMFS_EINVALID, "this process serves TLS already");
    t = mem_alloc(sizeof(*t));
    t->cert_path = mem_strdup(cert_path);
    t->key_path = mem_strdup(key_path);
    t->seen = t->tried = mark_files(t);
    rc = load_pair(t, &p, err);
    if (rc < 0) {
        free(t->cert_path);
        free(t->key_path);
        free(t);
        return rc;
    }
    show(p);
    log_pair(p);
    *ret = t;
    return MEMFS_OK;
}

void http_tls_close(http_tls *t)
{
    if (t == NULL)
        return;
    pthread_mutex_lock(&shown.mutex);
    free_list(shown.before);
    pair_free(shown.now);
    shown.before = shown.now = NULL;
    pthread_mutex_unlock(&shown.mutex);
    free(t->cert_path);
    free(t->key_path);
    free(t);
}

void http_tls_refresh(http_tls *t, bool is_asked)
{
    memfs_error err = MEMFS_ERROR_INIT;
    files_mark mark = mark_files(t);
    bool is_still = is_same(&mark, &t->seen);
    pair *p;

    t->seen = mark;
    if (!is_asked && (!is_still || is_same(&mark, &t->tried)))
        return;
    t->tried = mark;
    if (load_pair(t, &p, &err) < 0) {
        log_event(LOG_ERROR, "tls_certificate_refused", "reason", err.msg, "text",
                  "the one that was served stays", NULL);
        return;
    }
    show(p);
    log_pair(p);
}
