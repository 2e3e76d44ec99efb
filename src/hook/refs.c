#include "base/fs.h"
#include "base/mem.h"
#include "hook/hook.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <zlib.h>

/*
 * As much of git's files as the hook needs, read directly: asking git would take five times the
 * whole budget of the hook (design 15).
 *
 *   <common>/<ref>          40 hex digits and a newline, or "ref: <other>"
 *   <common>/packed-refs    "<40 hex> <ref>" a line, "#" and "^" lines between them
 *   objects/xx/yyy...       zlib: "commit <size>\0tree <40 hex>\nparent <40 hex>\n...author ..."
 *
 * Packed commits are not opened: what cannot be seen here is kept rather than judged, and `memfs
 * status` and `memfs sync` drop what was kept in vain (client/rescue.h).
 */

#define MAX_HEAD_BYTES 8192 /* of a commit: some 160 parents */
#define MAX_QUEUE 256

static bool read_loose(const char *common, const char *name, memfs_oid *ret)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", common, name);
    char text[MEMFS_OID_HEX + 1];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return false;
    n = read(fd, text, sizeof(text));
    close(fd);
    if (n < MEMFS_OID_HEX || (n > MEMFS_OID_HEX && str_hex_digit(text[MEMFS_OID_HEX]) >= 0))
        return false;
    return oid_parse(str_make(text, MEMFS_OID_HEX), ret);
}

bool refs_read_packed(const char *common, const char *name, memfs_oid *ret)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(256u << 20);
    _cleanup_(mem_freep) char *path = mem_printf("%s/packed-refs", common);
    memfs_error e = MEMFS_ERROR_INIT;
    memfs_str rest, line, wanted = str_of(name);

    if (fs_read(path, &text, &e) < 0)
        return false;
    rest = buf_str(&text);
    while (str_split(rest, '\n', &line, &rest))
        if (line.len == MEMFS_OID_HEX + 1 + wanted.len && line.ptr[MEMFS_OID_HEX] == ' ' &&
            str_equal(str_from(line, MEMFS_OID_HEX + 1), wanted))
            return oid_parse(str_make(line.ptr, MEMFS_OID_HEX), ret);
    return false;
}

ref_place refs_read(const char *common, const char *name, memfs_oid *ret)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", common, name);

    if (read_loose(common, name, ret))
        return REF_LOOSE;
    if (fs_exists(path) && !fs_is_dir(path)) /* symbolic, or not ours to understand */
        return REF_ABSENT;
    return refs_read_packed(common, name, ret) ? REF_PACKED : REF_ABSENT;
}

/* The first bytes of a loose object, inflated; 0: it is not there, or no zlib. */
static size_t loose_head(const char *objects, const memfs_oid *id, char *out, size_t max)
{
    char hex[MEMFS_OID_HEX + 1], packed[4096];
    _cleanup_(mem_freep) char *path = NULL;
    z_stream z = { 0 };
    int fd, state = Z_OK;
    ssize_t n;

    oid_hex(id, hex);
    path = mem_printf("%s/%.2s/%s", objects, hex, hex + 2);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return 0;
    z.next_out = (Bytef *)out;
    z.avail_out = (uInt)max;
    if (inflateInit(&z) == Z_OK) {
        while (state == Z_OK && z.avail_out > 0 && (n = read(fd, packed, sizeof(packed))) > 0) {
            z.next_in = (Bytef *)packed;
            z.avail_in = (uInt)n;
            state = inflate(&z, Z_NO_FLUSH);
        }
        inflateEnd(&z);
    }
    close(fd);
    return max - z.avail_out;
}

/* Parents of a loose commit, at most max of them. */
static size_t parents_of(const char *objects, const memfs_oid *id, memfs_oid *ret, size_t max)
{
    char text[MAX_HEAD_BYTES];
    memfs_str rest = str_make(text, loose_head(objects, id, text, sizeof(text))), line;
    size_t n = 0;

    if (!str_starts_with(rest, MEMFS_STR("commit ")) || !str_split(rest, '\0', &line, &rest) ||
        !str_split(rest, '\n', &line, &rest) || !str_starts_with(line, MEMFS_STR("tree ")))
        return 0;
    while (n < max && str_split(rest, '\n', &line, &rest) &&
           str_starts_with(line, MEMFS_STR("parent ")) && oid_parse(str_from(line, 7), &ret[n]))
        n++;
    return n;
}

static bool is_among(const memfs_oid *at, size_t n, const memfs_oid *id)
{
    for (size_t i = 0; i < n; i++)
        if (oid_equal(&at[i], id))
            return true;
    return false;
}

bool refs_reaches(const char *common, const memfs_oid *from, const memfs_oid *target)
{
    const char *said = getenv("GIT_OBJECT_DIRECTORY");
    _cleanup_(mem_freep) char *objects =
        said != NULL && said[0] != '\0' ? mem_strdup(said) : mem_printf("%s/objects", common);
    memfs_oid queue[MAX_QUEUE], parents[MAX_QUEUE];
    size_t n = 1;

    queue[0] = *from;
    for (size_t at = 0; at < n && at < REFS_WALK; at++) {
        size_t n_parents;

        if (oid_equal(&queue[at], target))
            return true;
        n_parents = parents_of(objects, &queue[at], parents, ARRAY_LEN(parents));
        for (size_t i = 0; i < n_parents; i++) {
            if (oid_equal(&parents[i], target))
                return true;
            if (n < MAX_QUEUE && !is_among(queue, n, &parents[i]))
                queue[n++] = parents[i];
        }
    }
    return false;
}
