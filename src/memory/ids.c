#include "memory/ids.h"

#include "base/buf.h"
#include "base/hash.h"

#include <assert.h>

#define UUID_LEN 36

static bool is_lower_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

static bool is_uuid4(memfs_str s)
{
    if (s.len != UUID_LEN)
        return false;
    for (size_t i = 0; i < UUID_LEN; i++) {
        bool is_dash = i == 8 || i == 13 || i == 18 || i == 23;

        if (is_dash ? s.ptr[i] != '-' : !is_lower_hex(s.ptr[i]))
            return false;
    }
    return s.ptr[14] == '4' && strchr("89ab", s.ptr[19]) != NULL;
}

bool ids_is_prefixed_uuid4(memfs_str id, const char *prefix)
{
    size_t n = strlen(prefix);

    return id.len == n + 1 + UUID_LEN && memcmp(id.ptr, prefix, n) == 0 && id.ptr[n] == '-' &&
           is_uuid4(str_from(id, n + 1));
}

bool ids_is_agent(memfs_str id)
{
    return ids_is_prefixed_uuid4(id, "agent") || ids_is_prefixed_uuid4(id, "agent-local");
}

bool ids_is_shared(memfs_str id)
{
    return ids_is_prefixed_uuid4(id, "repo");
}

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("._-", c) != NULL);
}

/* What clients call other things that lie beside it, or what git would take for something else. */
static bool is_taken_name(const char *lower, size_t n)
{
    static const char *const whole[] = { "memory", "memory-worktrees", "memory-git-clone-tmp" };
    static const char *const starts[] = { "memory-backup-", "memory.checkout" };
    static const char *const ends[] = { ".git", ".lock" };

    for (size_t i = 0; i < ARRAY_LEN(whole); i++)
        if (strcmp(lower, whole[i]) == 0)
            return true;
    for (size_t i = 0; i < ARRAY_LEN(starts); i++)
        if (strncmp(lower, starts[i], strlen(starts[i])) == 0)
            return true;
    for (size_t i = 0; i < ARRAY_LEN(ends); i++)
        if (n >= strlen(ends[i]) && strcmp(lower + n - strlen(ends[i]), ends[i]) == 0)
            return true;
    return false;
}

const char *ids_shared_name_fault(memfs_str name)
{
    char lower[IDS_SHARED_NAME_MAX + 1];

    if (name.len == 0 || name.len > IDS_SHARED_NAME_MAX)
        return "must have 1 to 64 characters";
    for (size_t i = 0; i < name.len; i++) {
        if (!is_name_char(name.ptr[i]))
            return "may have letters, digits, '.', '_' and '-' only";
        lower[i] = (char)(name.ptr[i] | (name.ptr[i] >= 'A' && name.ptr[i] <= 'Z' ? 0x20 : 0));
    }
    lower[name.len] = '\0';
    if (strcmp(lower, ".") == 0 || strcmp(lower, "..") == 0)
        return "must be more than dots";
    return is_taken_name(lower, name.len) ? "is kept for what clients put beside it" : NULL;
}

bool ids_is_memory(memfs_str id)
{
    return ids_is_agent(id) || ids_is_shared(id);
}

static void digest(memfs_str agent_id, memfs_str label, uint8_t out[16])
{
    _cleanup_(buf_dispose) memfs_buf name = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    buf_add_str(&name, agent_id);
    buf_putc(&name, ':');
    buf_add_str(&name, label);
    hash_md5(buf_str(&name), out);
}

/* "<prefix>-" and the bytes as 8-4-4-4-12 digits. */
static void put_id(const char *prefix, const uint8_t bytes[16], char *out)
{
    static const uint8_t groups[] = { 4, 2, 2, 2, 6 };
    size_t at = strlen(prefix), from = 0;

    memcpy(out, prefix, at + 1);
    for (size_t i = 0; i < ARRAY_LEN(groups); i++) {
        out[at++] = '-';
        hash_hex(bytes + from, groups[i], out + at);
        from += groups[i];
        at += 2 * (size_t)groups[i];
    }
}

static void make_version_4(uint8_t bytes[16])
{
    bytes[6] = (uint8_t)((bytes[6] & 0x0F) | 0x40);
    bytes[8] = (uint8_t)((bytes[8] & 0x3F) | 0x80);
}

void ids_new(const char *prefix, char out[IDS_MAX_LEN + 1])
{
    uint8_t bytes[16];

    assert(strlen(prefix) <= 20);
    hash_random(bytes, sizeof(bytes));
    make_version_4(bytes);
    put_id(prefix, bytes, out);
}

void ids_block_synthetic(memfs_str agent_id, memfs_str label, char out[IDS_BLOCK_LEN + 1])
{
    uint8_t bytes[16];

    digest(agent_id, label, bytes);
    put_id("block", bytes, out);
}

void ids_block(memfs_str agent_id, memfs_str label, char out[IDS_BLOCK_LEN + 1])
{
    uint8_t bytes[16];

    digest(agent_id, label, bytes);
    make_version_4(bytes);
    put_id("block", bytes, out);
}
