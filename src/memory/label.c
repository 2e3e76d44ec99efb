/*
 * Labels are paths without ".md", with one exception: a skill lives in skills/<name>/SKILL.md and
 * is called skills/<name>; no other file below skills/ is a block.  A prefix filter narrows all but
 * the skills.
 *
 * The filter is a comma list whose parts are stripped of white space as Python's str.strip() has
 * it, because that is what reads the same environment variable in patched Letta servers.
 */
#include "memory/label.h"

#define MD MEMFS_STR(".md")
#define SKILLS MEMFS_STR("skills/")
#define SKILL_FILE MEMFS_STR("/SKILL.md")

static bool is_space(uint32_t cp)
{
    return (cp >= 0x09 && cp <= 0x0D) || (cp >= 0x1C && cp <= 0x20) || cp == 0x85 || cp == 0xA0 ||
           cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 ||
           cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

static memfs_str strip(memfs_str s)
{
    size_t first = s.len, end = s.len, pos = 0;

    while (pos < s.len) {
        size_t start = pos;
        uint32_t cp;
        bool is_blank = str_utf8_next(s, &pos, &cp) && is_space(cp);

        if (is_blank)
            continue;
        if (first == s.len)
            first = start;
        end = pos;
    }
    return str_make(s.ptr + first, end - first);
}

/* No parts are no filter. */
static bool passes_filter(memfs_str path, memfs_str prefixes)
{
    bool has_part = false;
    bool is_last = false;

    while (!is_last) {
        memfs_str part, rest;

        is_last = !str_split(prefixes, ',', &part, &rest);
        if (is_last)
            part = prefixes;
        part = strip(part);
        if (part.len > 0) {
            has_part = true;
            if (str_starts_with(path, part))
                return true;
        }
        if (!is_last)
            prefixes = rest;
    }
    return !has_part;
}

/* The <name> of skills/<name>/SKILL.md, exactly three segments. */
static bool is_skill(memfs_str path, memfs_str *ret_label)
{
    size_t name_len;

    if (!str_ends_with(path, SKILL_FILE) || path.len <= SKILLS.len + SKILL_FILE.len)
        return false;
    name_len = path.len - SKILLS.len - SKILL_FILE.len;
    if (memchr(path.ptr + SKILLS.len, '/', name_len) != NULL)
        return false;
    *ret_label = str_make(path.ptr, SKILLS.len + name_len);
    return true;
}

bool label_of_path(memfs_str path, memfs_str prefixes, memfs_str *ret_label)
{
    if (!str_ends_with(path, MD))
        return false;
    if (str_starts_with(path, SKILLS))
        return is_skill(path, ret_label);
    if (!passes_filter(path, prefixes))
        return false;
    *ret_label = str_make(path.ptr, path.len - MD.len);
    return true;
}

void label_to_path(memfs_str label, memfs_buf *out)
{
    memfs_str name;

    while (label.len > 0 && label.ptr[0] == '/')
        label = str_from(label, 1);
    buf_add_str(out, label);
    name = str_starts_with(label, SKILLS) ? str_from(label, SKILLS.len) : str_make(NULL, 0);
    if (name.len > 0 && memchr(name.ptr, '/', name.len) == NULL)
        buf_add_str(out, SKILL_FILE);
    else
        buf_add_str(out, MD);
}
