#include "hook/hook.h"

#include <strings.h>

/*
 * The only thing that comes from outside: it decides on a path, so it is a whitelist (T01).
 *
 * Agents are "agent-" or "agent-local-" and a lower-case UUID of version 4.  Names of shared
 * repositories are percent-encoded by the client; decoded they are [A-Za-z0-9._-]{1,64}, no dots
 * alone, and none of the names that the client uses beside its mounts.
 */

static bool is_uuid4(memfs_str s)
{
    if (s.len != 36)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        bool is_dash = i == 8 || i == 13 || i == 18 || i == 23;

        if (is_dash ? s.ptr[i] != '-'
                    : str_hex_digit(s.ptr[i]) < 0 || (s.ptr[i] >= 'A' && s.ptr[i] <= 'F'))
            return false;
    }
    return s.ptr[14] == '4' && strchr("89ab", s.ptr[19]) != NULL;
}

static bool is_agent(memfs_str s)
{
    if (!str_starts_with(s, MEMFS_STR("agent-")))
        return false;
    s = str_from(s, 6);
    if (str_starts_with(s, MEMFS_STR("local-")))
        s = str_from(s, 6);
    return is_uuid4(s);
}

static bool decode(memfs_str s, char *out, size_t max)
{
    size_t n = 0;

    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];

        if (c == '%') {
            int high = i + 2 < s.len ? str_hex_digit(s.ptr[i + 1]) : -1;
            int low = i + 2 < s.len ? str_hex_digit(s.ptr[i + 2]) : -1;

            if (high < 0 || low < 0)
                return false;
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (n == max || c == '\0')
            return false;
        out[n++] = c;
    }
    out[n] = '\0';
    return n > 0;
}

static bool is_repository(const char *name)
{
    static const char *const TAKEN[] = { ".", "..", "memory", "memory-worktrees",
                                         "memory-git-clone-tmp" };
    memfs_str s = str_of(name);

    for (const char *at = name; *at != '\0'; at++)
        if (!((*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') ||
              (*at >= '0' && *at <= '9') || strchr("._-", *at) != NULL))
            return false;
    for (size_t i = 0; i < ARRAY_LEN(TAKEN); i++)
        if (strcasecmp(name, TAKEN[i]) == 0)
            return false;
    return name[0] != '-' && !str_starts_with(s, MEMFS_STR("memory-backup-")) &&
           !str_starts_with(s, MEMFS_STR("memory.checkout")) &&
           !str_ends_with(s, MEMFS_STR(".git")) && !str_ends_with(s, MEMFS_STR(".lock"));
}

bool remote_name_parse(memfs_str url, remote_name *ret)
{
    remote_name found = { .agent = "" };
    memfs_str agent, rest;

    if (str_ends_with(url, MEMFS_STR("/")))
        url.len--;
    if (!str_split(url, '/', &agent, &rest) || !is_agent(agent))
        return false;
    memcpy(found.agent, agent.ptr, agent.len);
    if (!str_equal(rest, MEMFS_STR("state.git"))) {
        if (!str_starts_with(rest, MEMFS_STR("repositories/")) ||
            !str_ends_with(rest, MEMFS_STR(".git")))
            return false;
        rest = str_from(rest, strlen("repositories/"));
        if (rest.len <= 4)
            return false;
        rest.len -= 4;
        if (!decode(rest, found.repository, sizeof(found.repository) - 1) ||
            !is_repository(found.repository))
            return false;
    }
    *ret = found;
    return true;
}
