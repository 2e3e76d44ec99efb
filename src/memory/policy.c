#include "memory/policy.h"

#include "base/buf.h"
#include "base/escape.h"
#include "base/hash.h"
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

/*
 * What git accepts and a memory must not hold.  `git index-pack --strict` has already refused what
 * cannot be a tree at all and what would overwrite a .git folder; a checkout on another machine can
 * still be harmed by what it lets through (reliability T11):
 *
 *   - modes: a link leads a reader out of the memory, a submodule is a repository nobody has
 *   - names that are not what they look like: control bytes, text direction, broken UTF-8
 *   - names that a file system may change or join: not in NFC, or equal to a neighbour but for case
 *   - names that a program takes for something else: a leading '-', a backslash
 *   - sizes, so that a checkout of a tiny pack cannot fill a disk (T14 to T16)
 *
 * Two names are twins when they are equal after Unicode case folding, NFC and the removal of
 * ignorable characters.  Most names are ASCII, where that is one pass of lower-casing.
 *
 * Every refusal is "'path': rule; what to do".  The path is escaped and cut, so that the line stays
 * a line whatever the name was (T20).
 */

#define SECONDS_2100 4102444800

bool tree_next(memfs_str raw, size_t *pos, tree_entry *ret, bool *ret_bad)
{
    size_t at = *pos, name;
    uint32_t mode = 0;
    const char *end;

    *ret_bad = false;
    if (at >= raw.len)
        return false;
    *ret_bad = true;
    while (at < raw.len && raw.ptr[at] >= '0' && raw.ptr[at] <= '7' && mode <= 0777777)
        mode = mode << 3 | (uint32_t)(raw.ptr[at++] - '0');
    if (at == *pos || at >= raw.len || raw.ptr[at] != ' ')
        return false;
    name = at + 1;
    end = memchr(raw.ptr + name, '\0', raw.len - name);
    if (end == NULL || end == raw.ptr + name || raw.ptr + raw.len - end < 21)
        return false;
    *ret_bad = false;
    ret->mode = mode;
    ret->name = str_make(raw.ptr + name, (size_t)(end - raw.ptr) - name);
    memcpy(ret->id.id, end + 1, sizeof(ret->id.id));
    *pos = (size_t)(end - raw.ptr) + 21;
    return true;
}

memfs_code policy_refuse(memfs_error *err, memfs_str folder, memfs_str name, const char *fmt, ...)
{
    _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    char shown[240], rule[256];
    va_list ap;

    buf_add_str(&path, folder);
    buf_add_str(&path, name);
    va_start(ap, fmt);
    vsnprintf(rule, sizeof(rule), fmt, ap);
    va_end(ap);
    return memfs_fail(err, MEMFS_EDENIED, "'%s': %s",
                      escape_text(buf_str(&path), shown, sizeof(shown)), rule);
}

/* modes */

static bool mode_is_allowed(const policy *p, uint32_t mode)
{
    switch (mode) {
    case TREE_MODE_FOLDER:
    case TREE_MODE_FILE:
    case TREE_MODE_EXEC: return true;
    case 0100664: /* written by git of 2005, still found in imports */
    case TREE_MODE_LINK:
    case TREE_MODE_GITLINK: return p->lenient;
    default: return false;
    }
}

static memfs_code check_mode(const policy *p, memfs_str folder, const tree_entry *e,
                             memfs_error *err)
{
    if (mode_is_allowed(p, e->mode))
        return MEMFS_OK;
    if (e->mode == TREE_MODE_LINK)
        return policy_refuse(err, folder, e->name,
                             "symbolic links are not allowed; commit the file itself");
    if (e->mode == TREE_MODE_GITLINK)
        return policy_refuse(err, folder, e->name,
                             "submodules are not allowed; commit the files themselves");
    return policy_refuse(err, folder, e->name,
                         "file mode %06o is not allowed; use 100644 or 100755", (unsigned)e->mode);
}

/* names */

static bool is_ascii(memfs_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] >= 0x80)
            return false;
    return true;
}

static bool has_control(memfs_str s)
{
    size_t pos = 0;
    uint32_t cp;

    while (pos < s.len)
        if (!str_utf8_next(s, &pos, &cp) || escape_is_control(cp))
            return true;
    return false;
}

/* NULL: utf8proc has no answer (an unassigned code point is no reason for that). Caller frees. */
static char *mapped(memfs_str s, int options, size_t *ret_len)
{
    utf8proc_uint8_t *out = NULL;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)s.ptr, (utf8proc_ssize_t)s.len,
                                      &out, (utf8proc_option_t)options);

    *ret_len = n < 0 ? 0 : (size_t)n;
    return n < 0 ? NULL : (char *)out;
}

static bool is_nfc(memfs_str s)
{
    _cleanup_(mem_freep) char *composed = NULL;
    size_t len;

    if (is_ascii(s))
        return true;
    composed = mapped(s, UTF8PROC_STABLE | UTF8PROC_COMPOSE, &len);
    return composed != NULL && str_equal(str_make(composed, len), s);
}

/* Lower case, where ASCII suffices. */
void policy_name_key(memfs_str name, memfs_buf *out)
{
    _cleanup_(mem_freep) char *folded = NULL;
    size_t len;

    buf_clear(out);
    if (!is_ascii(name)) {
        folded = mapped(
            name, UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_CASEFOLD | UTF8PROC_IGNORE, &len);
        if (folded != NULL) {
            buf_add(out, folded, len);
            return;
        }
    }
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];

        buf_putc(out, c >= 'A' && c <= 'Z' ? (char)(c + 32) : c);
    }
}

/* Also what HFS+ and NTFS would open as .git. */
static bool is_dot_git(memfs_str name)
{
    _cleanup_(buf_dispose) memfs_buf key = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    policy_name_key(name, &key);
    while (key.len > 0 && (key.ptr[key.len - 1] == '.' || key.ptr[key.len - 1] == ' '))
        buf_truncate(&key, key.len - 1);
    return str_equal(buf_str(&key), MEMFS_STR(".git")) ||
           str_equal(buf_str(&key), MEMFS_STR("git~1"));
}

/* NTFS shortens .gitmodules to gitmod~1 or, when that is taken, to a hash (git's is_ntfs_dotgit).
 */
bool policy_is_git_file(memfs_str name)
{
    static const char *const begins[] = { ".gitmodules", ".gitattributes", "gitmod~",
                                          "gitatt~",     "gi7eb",          "gi7d2" };
    _cleanup_(buf_dispose) memfs_buf key = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    policy_name_key(name, &key);
    for (size_t i = 0; i < ARRAY_LEN(begins); i++)
        if (str_starts_with(buf_str(&key), str_of(begins[i])))
            return true;
    return false;
}

/* Holds under any policy. */
static memfs_code check_name_is_safe(const policy *p, memfs_str folder, memfs_str name,
                                     memfs_error *err)
{
    if (str_equal(name, MEMFS_STR(".")) || str_equal(name, MEMFS_STR("..")) ||
        memchr(name.ptr, '/', name.len) != NULL || is_dot_git(name))
        return policy_refuse(err, folder, name, "this name is reserved; choose another");
    if (name.len > p->max_name_bytes)
        return policy_refuse(err, folder, name,
                             "a name may have %u bytes and this one has %zu; shorten it",
                             p->max_name_bytes, name.len);
    if (folder.len + name.len > p->max_path_bytes)
        return policy_refuse(err, folder, name,
                             "a path may have %u bytes and this one has %zu; shorten it",
                             p->max_path_bytes, folder.len + name.len);
    return MEMFS_OK;
}

static memfs_code check_name_is_plain(memfs_str folder, memfs_str name, memfs_error *err)
{
    if (str_utf8_valid_prefix(name) != name.len)
        return policy_refuse(err, folder, name, "the name is not valid UTF-8; rename the file");
    if (has_control(name))
        return policy_refuse(err, folder, name,
                             "the name has control or text-direction characters; rename the file");
    if (memchr(name.ptr, '\\', name.len) != NULL)
        return policy_refuse(err, folder, name, "the name has a backslash; rename the file");
    if (name.ptr[0] == '-')
        return policy_refuse(err, folder, name, "the name begins with '-'; rename the file");
    if (!is_nfc(name))
        return policy_refuse(err, folder, name,
                             "the name is not in Unicode normal form NFC; rename the file");
    return MEMFS_OK;
}

memfs_code policy_entry(const policy *p, memfs_str folder, const tree_entry *entry,
                        memfs_error *err)
{
    memfs_code rc = check_mode(p, folder, entry, err);

    if (rc == MEMFS_OK)
        rc = check_name_is_safe(p, folder, entry->name, err);
    if (rc == MEMFS_OK && !p->lenient)
        rc = check_name_is_plain(folder, entry->name, err);
    return rc;
}

/* twins */

typedef struct name_set {
    memfs_str *slots; /* names, in an open table */
    uint64_t *hashes;
    size_t mask;
    uint64_t seed; /* so that nobody can prepare names that all meet in one slot */
} name_set;

static void name_set_dispose(name_set *set)
{
    free(set->slots);
    free(set->hashes);
}

static void name_set_init(name_set *set, size_t n)
{
    size_t size = 16;

    while (size < n * 2)
        size *= 2;
    set->slots = mem_alloc(size * sizeof(*set->slots));
    set->hashes = mem_alloc(size * sizeof(*set->hashes));
    set->mask = size - 1;
    hash_random((uint8_t *)&set->seed, sizeof(set->seed));
}

/* FNV-1a from a random start, mixed once more because the table uses the low bits. */
static uint64_t hash_bytes(uint64_t seed, memfs_str key)
{
    uint64_t hash = 14695981039346656037u ^ seed;

    for (size_t i = 0; i < key.len; i++)
        hash = (hash ^ (unsigned char)key.ptr[i]) * 1099511628211u;
    hash ^= hash >> 32;
    hash *= 0xd6e8feb86659fd93u;
    return hash ^ hash >> 32;
}

static bool are_twins(memfs_str a, memfs_str b)
{
    _cleanup_(buf_dispose) memfs_buf ka = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf kb = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    policy_name_key(a, &ka);
    policy_name_key(b, &kb);
    return str_equal(buf_str(&ka), buf_str(&kb));
}

/* Adds name; returns its twin that is there already (then nothing is added), or a NULL slice. */
static memfs_str name_set_add(name_set *set, memfs_str name, memfs_buf *scratch)
{
    uint64_t hash;
    size_t at;

    policy_name_key(name, scratch);
    hash = hash_bytes(set->seed, buf_str(scratch));
    for (at = hash & set->mask; set->slots[at].ptr != NULL; at = (at + 1) & set->mask)
        if (set->hashes[at] == hash && are_twins(set->slots[at], name))
            return set->slots[at];
    set->slots[at] = name;
    set->hashes[at] = hash;
    return str_make(NULL, 0);
}

static bool tree_has(memfs_str raw, memfs_str name)
{
    size_t pos = 0;
    tree_entry e;
    bool bad;

    while (tree_next(raw, &pos, &e, &bad))
        if (str_equal(e.name, name))
            return true;
    return false;
}

static size_t count_entries(memfs_str raw)
{
    size_t pos = 0, n = 0;
    tree_entry e;
    bool bad;

    while (tree_next(raw, &pos, &e, &bad))
        n++;
    return n;
}

memfs_code policy_siblings(const policy *p, memfs_str folder, memfs_str raw, memfs_str known_raw,
                           memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf scratch = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(name_set_dispose) name_set set = { NULL, NULL, 0, 0 };
    size_t pos = 0, n = count_entries(raw);
    tree_entry e;
    bool bad;

    if (n > p->max_entries)
        return policy_totals(p, n, 0, err);
    if (p->lenient)
        return MEMFS_OK;
    name_set_init(&set, n);
    while (tree_next(raw, &pos, &e, &bad)) {
        memfs_str twin = name_set_add(&set, e.name, &scratch);
        char shown[120];

        if (twin.ptr == NULL || (tree_has(known_raw, twin) && tree_has(known_raw, e.name)))
            continue;
        return policy_refuse(err, folder, e.name,
                             "'%s' beside it differs only in case or form; rename one of them",
                             escape_text(twin, shown, sizeof(shown)));
    }
    return MEMFS_OK;
}

/* sizes and dates */

memfs_code policy_file_size(const policy *p, memfs_str path, uint64_t bytes, memfs_error *err)
{
    if (bytes <= p->max_file_bytes)
        return MEMFS_OK;
    return policy_refuse(err, MEMFS_STR(""), path,
                         "a file may have %llu bytes and this one has %llu; split it",
                         (unsigned long long)p->max_file_bytes, (unsigned long long)bytes);
}

memfs_code policy_totals(const policy *p, uint64_t n_entries, uint64_t bytes, memfs_error *err)
{
    if (n_entries > p->max_entries)
        return memfs_fail(err, MEMFS_EDENIED,
                          "a memory may have %llu files and folders and this one has more; "
                          "remove some",
                          (unsigned long long)p->max_entries);
    if (bytes > p->max_tree_bytes)
        return memfs_fail(err, MEMFS_EDENIED,
                          "the files of a memory may have %llu bytes and these have more; "
                          "remove some",
                          (unsigned long long)p->max_tree_bytes);
    return MEMFS_OK;
}

memfs_code policy_commit_dates(const policy *p, int64_t author_s, int64_t committer_s,
                               memfs_error *err)
{
    int64_t wrong = author_s < 0 || author_s >= SECONDS_2100 ? author_s : committer_s;

    (void)p; /* no setting moves these bounds */
    if (wrong >= 0 && wrong < SECONDS_2100)
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_EDENIED,
                      "a commit is dated %lld seconds from 1970, outside of 1970 to 2100; set the "
                      "clock right and amend it",
                      (long long)wrong);
}
