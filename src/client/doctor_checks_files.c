#include "client/doctor_int.h"

#include "base/fs.h"
#include "base/mem.h"

#include <errno.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Checks of the files: whose they are, who may write them, and whether they are text that git and
 * Letta read. */

/* walking */

typedef void (*file_fn)(FTSENT *e, void *ctx);

static void walk(const char *folder, int (*may_enter)(const FTSENT *e), file_fn fn, void *ctx)
{
    char *roots[] = { (char *)(uintptr_t)folder, NULL };
    FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    FTSENT *e;

    while (fts != NULL && (e = fts_read(fts)) != NULL) {
        if (e->fts_info == FTS_DP)
            continue;
        if (e->fts_info == FTS_D && !may_enter(e)) {
            fts_set(fts, e, FTS_SKIP);
            continue;
        }
        fn(e, ctx);
    }
    if (fts != NULL)
        fts_close(fts);
}

static int may_enter_all(const FTSENT *e)
{
    (void)e;
    return 1;
}

/* permissions */

typedef struct modes {
    bool is_shared; /* core.sharedRepository: the group may write */
    size_t n_foreign, n_closed, n_open;
    char foreign[300], closed[300], open[300]; /* the first of each */
    unsigned foreign_uid;
    memfs_buf failure; /* of mending */
} modes;

static void note_first(char out[300], size_t *n, const char *path)
{
    if ((*n)++ == 0)
        snprintf(out, 300, "%s", path);
}

/* What the owner must be able to do: git keeps objects read-only. */
static mode_t needed_mode(const FTSENT *e)
{
    if (e->fts_info == FTS_D || e->fts_info == FTS_DNR)
        return 0700;
    return strstr(e->fts_path, "/.git/objects/") != NULL ? 0400 : 0600;
}

/* A group that has the user's own number is the user alone: where each has one, umask is 002 and git
 * writes nothing else. */
static bool is_own_group(const FTSENT *e)
{
    return getegid() == geteuid() && e->fts_statp->st_gid == getegid();
}

/* Who can write hooks, config or refs can run programs as us. */
static mode_t forbidden_mode(const FTSENT *e, const modes *m)
{
    if (strstr(e->fts_path, "/.git/") == NULL && strcmp(e->fts_name, ".git") != 0)
        return 0;
    return m->is_shared || is_own_group(e) ? 0002 : 0022;
}

static bool is_judged(const FTSENT *e)
{
    return e->fts_info == FTS_D || e->fts_info == FTS_DNR || e->fts_info == FTS_F;
}

static void judge_mode(FTSENT *e, void *ctx)
{
    modes *m = ctx;
    mode_t mode;

    if (!is_judged(e))
        return;
    mode = e->fts_statp->st_mode;
    if (e->fts_statp->st_uid != geteuid()) {
        note_first(m->foreign, &m->n_foreign, e->fts_path);
        m->foreign_uid = e->fts_statp->st_uid;
    } else if ((mode & needed_mode(e)) != needed_mode(e)) {
        note_first(m->closed, &m->n_closed, e->fts_path);
    } else if ((mode & forbidden_mode(e, m)) != 0) {
        note_first(m->open, &m->n_open, e->fts_path);
    }
}

static void mend_mode(FTSENT *e, void *ctx)
{
    modes *m = ctx;
    mode_t mode, wanted;

    if (!is_judged(e) || e->fts_statp->st_uid != geteuid())
        return;
    mode = e->fts_statp->st_mode & 07777;
    wanted = mode | needed_mode(e);
    if ((mode & forbidden_mode(e, m)) != 0)
        wanted &= m->is_shared ? ~(mode_t)0002 : ~(mode_t)0022;
    if (wanted != mode && chmod(e->fts_accpath, wanted) < 0 && m->failure.len == 0)
        buf_printf(&m->failure, "could not change '%s': %s", e->fts_path, strerror(errno));
}

static void modes_of(const patient *w, modes *ret)
{
    const char *shared =
        w->config != NULL ? gitconfig_get(w->config, "core.sharedRepository") : NULL;

    *ret = (modes){ .is_shared = shared != NULL && strcmp(shared, "false") != 0 &&
                                 strcmp(shared, "umask") != 0 && strcmp(shared, "0") != 0,
                    .failure = MEMFS_BUF_INIT(1024) };
}

void look_permissions(patient *w, faults *ret)
{
    modes m;

    modes_of(w, &m);
    walk(w->p->memory, may_enter_all, judge_mode, &m);
    if (m.n_foreign > 0)
        faults_add(ret, FINDING_PROBLEM, false, "owner",
                   "give them to the user whose agent this is: chown "
                   "-R; something ran as another user here",
                   "%zu files belong to another user (%u), "
                   "the first is '%s'",
                   m.n_foreign, m.foreign_uid, m.foreign);
    if (m.n_closed > 0)
        faults_add(
            ret, FINDING_WARNING, true, "closed", "'memfs doctor --fix' opens them for you",
            "%zu files or folders cannot be written (or read) by their owner, the first is '%s'",
            m.n_closed, m.closed);
    if (m.n_open > 0)
        faults_add(
            ret, FINDING_WARNING, true, "open", "'memfs doctor --fix' closes them",
            "%zu files or folders of the repository may be changed by other users, the first is "
            "'%s'",
            m.n_open, m.open);
    buf_dispose(&m.failure);
}

/* A closed folder opens on the way down, so what lies in it is reached by the next round. */
memfs_code mend_permissions(patient *w, const faults *found, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    (void)found;
    for (int round = 0; round < 8 && rc == MEMFS_OK; round++) {
        modes left, m;

        modes_of(w, &m);
        modes_of(w, &left);
        walk(w->p->memory, may_enter_all, mend_mode, &m);
        walk(w->p->memory, may_enter_all, judge_mode, &left);
        if (m.failure.len > 0)
            rc = memfs_fail(err, MEMFS_EDENIED, "%s", m.failure.ptr);
        buf_dispose(&m.failure);
        if (left.n_closed + left.n_open == 0)
            break;
    }
    return rc;
}

/* text that is not UTF-8 */

#define FILE_MAX (10u << 20)

typedef enum encoding {
    ENCODING_GOOD,
    ENCODING_BOM,
    ENCODING_UTF16_LE,
    ENCODING_UTF16_BE
} encoding;

/* By its byte-order mark, or, without one, by the "--" that front matter begins with. */
static encoding encoding_of(memfs_str text, size_t *ret_skip)
{
    static const struct {
        memfs_str start;
        encoding is;
        size_t skip;
    } table[] = {
        { { "\xEF\xBB\xBF", 3 }, ENCODING_BOM, 3 },  { { "\xFF\xFE", 2 }, ENCODING_UTF16_LE, 2 },
        { { "\xFE\xFF", 2 }, ENCODING_UTF16_BE, 2 }, { { "-\0-\0", 4 }, ENCODING_UTF16_LE, 0 },
        { { "\0-\0-", 4 }, ENCODING_UTF16_BE, 0 },
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (str_starts_with(text, table[i].start)) {
            *ret_skip = table[i].skip;
            return table[i].is;
        }
    return ENCODING_GOOD;
}

static uint32_t unit_at(memfs_str s, size_t i, bool is_big)
{
    unsigned char a = (unsigned char)s.ptr[i], b = (unsigned char)s.ptr[i + 1];

    return is_big ? (uint32_t)a << 8 | b : (uint32_t)b << 8 | a;
}

/* False: a half character, or half a pair. */
static bool decode_utf16(memfs_str s, bool is_big, memfs_buf *out)
{
    char utf8[4];

    if (s.len % 2 != 0)
        return false;
    for (size_t i = 0; i < s.len; i += 2) {
        uint32_t cp = unit_at(s, i, is_big);

        if (cp >= 0xDC00 && cp <= 0xDFFF)
            return false;
        if (cp >= 0xD800 && cp <= 0xDBFF) {
            uint32_t low = i + 3 < s.len ? unit_at(s, i + 2, is_big) : 0;

            if (low < 0xDC00 || low > 0xDFFF)
                return false;
            cp = 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
            i += 2;
        }
        buf_add(out, utf8, str_utf8_put(cp, utf8));
    }
    return true;
}

/* CRLF comes with UTF-16 (PowerShell's ">"), and front matter that ends its lines so is none. */
static void drop_cr(memfs_buf *text)
{
    size_t to = 0;

    for (size_t i = 0; i < text->len; i++)
        if (text->ptr[i] != '\r' || i + 1 == text->len || text->ptr[i + 1] != '\n')
            text->ptr[to++] = text->ptr[i];
    buf_truncate(text, to);
}

/* The same text as UTF-8.  False: it is UTF-8 already, or cannot be read without loss. */
static bool as_utf8(memfs_str text, encoding *ret, memfs_buf *out)
{
    size_t skip = 0;
    bool is_good;

    *ret = encoding_of(text, &skip);
    text = str_from(text, skip);
    if (*ret == ENCODING_GOOD)
        return false;
    if (*ret == ENCODING_BOM) {
        buf_add_str(out, text);
        return str_utf8_valid_prefix(text) == text.len;
    }
    is_good = decode_utf16(text, *ret == ENCODING_UTF16_BE, out);
    drop_cr(out);
    return is_good;
}

/* Files of the memory alone: no .git, and no repository inside it. */
static int may_enter_memory(const FTSENT *e)
{
    _cleanup_(mem_freep) char *inner = mem_printf("%s/.git", e->fts_path);

    return strcmp(e->fts_name, ".git") != 0 && (e->fts_level == 0 || !fs_exists(inner));
}

static void look_at_text(FTSENT *e, void *ctx)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(FILE_MAX);
    _cleanup_(buf_dispose) memfs_buf utf8 = MEMFS_BUF_INIT(2 * FILE_MAX);
    memfs_error ignored;
    faults *ret = ctx;
    encoding is;
    bool can_mend;

    if (e->fts_info != FTS_F || !str_ends_with(str_of(e->fts_path), MEMFS_STR(".md")) ||
        fs_read(e->fts_path, &text, &ignored) < 0)
        return;
    can_mend = as_utf8(buf_str(&text), &is, &utf8);
    if (is == ENCODING_GOOD)
        return;
    faults_add(ret, FINDING_WARNING, can_mend, e->fts_path,
               can_mend ? "'memfs doctor --fix' converts it (the original is kept); commit it then"
                        : "write it anew as UTF-8",
               is == ENCODING_BOM
                   ? "'%s' begins with a byte-order mark: its front matter is not seen"
                   : "'%s' is UTF-16: git takes it for binary, and prompts cannot have it",
               e->fts_path);
}

void look_encoding(patient *w, faults *ret)
{
    walk(w->p->memory, may_enter_memory, look_at_text, ret);
}

static memfs_code convert(const patient *w, const char *path, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(FILE_MAX);
    _cleanup_(buf_dispose) memfs_buf utf8 = MEMFS_BUF_INIT(2 * FILE_MAX);
    const char *slash = strrchr(path, '/');
    struct stat st;
    encoding is;
    memfs_code rc;

    if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode))
        return MEMFS_OK; /* it went */
    rc = fs_read(path, &text, err);
    if (rc < 0 || !as_utf8(buf_str(&text), &is, &utf8))
        return rc;
    rc = doctor_keep_text(w, slash + 1, buf_str(&text), err);
    return rc == MEMFS_OK ? fs_write_atomic(path, buf_str(&utf8), st.st_mode & 0777, err) : rc;
}

memfs_code mend_encoding(patient *w, const faults *found, memfs_error *err)
{
    if (w->git_dir == NULL)
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no repository to keep the original in");
    for (size_t i = 0; i < found->n; i++) {
        memfs_code rc = found->at[i].can_mend ? convert(w, found->at[i].subject, err) : MEMFS_OK;

        if (rc < 0)
            return rc;
    }
    return MEMFS_OK;
}
