/*
 * The order of what is said is that of the client: front matter first, then the tree and its
 * limits. The client stops after the first half; here both are said, so that one round of edits is
 * enough.
 *
 * Front matter is read as lines, not as YAML: "---", then "key: value" lines of the keys `name` and
 * `description`, each once and with a value, then "---".  Only spaces around key and value are
 * dropped, and a line without ':' is its own key and value.
 */
#include "memory/layout.h"

#include "base/escape.h"
#include "base/mem.h"
#include "memory/tokens.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define CONFIG_FILE MEMFS_STR(".memfs.config.json")
#define INDEX_FILE MEMFS_STR("MEMORY.md")
#define SKILLS MEMFS_STR("skills/")
#define FENCE MEMFS_STR("---")
#define MAX_SAFE_INTEGER ((UINT64_C(1) << 53) - 1)
#define S_TYPE 0170000
#define S_REGULAR 0100000

layout_policy layout_policy_of(memfs_str policy_file, bool has_root_marker)
{
    while (policy_file.len > 0 && strchr(" \t\r\n", policy_file.ptr[policy_file.len - 1]) != NULL)
        policy_file.len--;
    while (policy_file.len > 0 && strchr(" \t\r\n", policy_file.ptr[0]) != NULL)
        policy_file = str_from(policy_file, 1);
    if (str_equal(policy_file, MEMFS_STR("shared-memory")))
        return LAYOUT_SHARED_MEMORY;
    if (str_equal(policy_file, MEMFS_STR("root-marker")) && has_root_marker)
        return LAYOUT_ROOT_MARKER;
    return LAYOUT_LEGACY;
}

/* ---- what to say ---- */

typedef struct check {
    layout_policy policy;
    layout_limits limits; /* UINT32_MAX and UINT64_MAX: none */
    const layout_file *files;
    size_t n_files;
    json_t *config; /* NULL: none, or one that is no good */
    layout_fn fn;
    void *ctx;
    size_t n_violations;
} check;

static void say(check *c, memfs_str path, const char *fmt, ...) MEMFS_PRINTF(3, 4);
static void say(check *c, memfs_str path, const char *fmt, ...)
{
    char what[512]; /* callers cut the names that they put into it */
    va_list args;

    c->n_violations++;
    if (c->fn == NULL)
        return;
    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    c->fn(path, what, c->ctx);
}

/* ---- the configuration ---- */

/* A whole number, also one written 2.0. */
static bool whole_of(const json_t *v, uint64_t least, uint64_t *ret)
{
    double real = json_is_number(v) ? json_number_value(v) : -1;

    if (real != floor(real) || real < (double)least || real > (double)MAX_SAFE_INTEGER)
        return false;
    *ret = (uint64_t)real;
    return true;
}

static json_t *load(memfs_str text)
{
    json_error_t ignored;

    return json_loadb(text.ptr, text.len, JSON_ALLOW_NUL, &ignored);
}

static void read_limits(const json_t *config, layout_limits *ret)
{
    uint64_t n;

    if (whole_of(json_object_get(config, "maxDepth"), 0, &n))
        ret->max_depth = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
    if (whole_of(json_object_get(config, "maxFileCharacters"), 1, &n))
        ret->max_file_chars = n;
    if (whole_of(json_object_get(config, "maxCoreMemoryCharacters"), 1, &n))
        ret->max_root_chars = n;
}

void layout_limits_of(memfs_str config_json, layout_limits *ret)
{
    json_t *config = load(config_json);

    read_limits(config, ret);
    json_decref(config);
}

static void check_number(check *c, const char *key, uint64_t least)
{
    const json_t *v = json_object_get(c->config, key);
    uint64_t ignored;

    if (v != NULL && !whole_of(v, least, &ignored))
        say(c, CONFIG_FILE, "'%s' must be a whole number of at least %d", key, (int)least);
}

static bool is_known(const char *key, const char *const *known, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(key, known[i]) == 0)
            return true;
    return false;
}

static void check_keys(check *c, json_t *object, const char *const *known, size_t n)
{
    char shown[64];
    const char *key;
    json_t *v;

    json_object_foreach(object, key, v) if (!is_known(key, known, n))
        say(c, CONFIG_FILE, "remove the unknown field '%s'",
            escape_text(str_of(key), shown, sizeof(shown)));
}

/* Relative, with '/', no ".."; "**" only as a whole part. */
static bool is_pattern(memfs_str p)
{
    memfs_str part, rest = p;
    bool has_more = true;

    if (p.len == 0 || p.ptr[0] == '/' || memchr(p.ptr, '\\', p.len) != NULL)
        return false;
    while (has_more) {
        has_more = str_split(rest, '/', &part, &rest);
        if (!has_more)
            part = rest;
        if (str_equal(part, MEMFS_STR("..")))
            return false;
        if (part.len > 2 && memmem(part.ptr, part.len, "**", 2) != NULL)
            return false;
    }
    return true;
}

static memfs_str text_of(const json_t *v)
{
    return json_is_string(v) ? str_make(json_string_value(v), json_string_length(v))
                             : MEMFS_STR("");
}

static void check_override(check *c, size_t i, json_t *item)
{
    static const char *const known[] = { "pattern", "maxCharacters" };
    const json_t *max = json_object_get(item, "maxCharacters");
    uint64_t ignored;

    if (!json_is_object(item)) {
        say(c, CONFIG_FILE, "fileCharacterLimits[%zu] must be an object", i);
        return;
    }
    check_keys(c, item, known, ARRAY_LEN(known));
    if (!is_pattern(text_of(json_object_get(item, "pattern"))))
        say(c, CONFIG_FILE,
            "fileCharacterLimits[%zu]: 'pattern' must be a glob relative to the root, with '/', "
            "without '..', and with '**' only as a whole part",
            i);
    if (!json_is_null(max) && !whole_of(max, 1, &ignored))
        say(c, CONFIG_FILE,
            "fileCharacterLimits[%zu]: 'maxCharacters' must be a whole number of at least 1, or "
            "null",
            i);
}

static void check_fields(check *c)
{
    static const char *const known[] = { "version", "maxDepth", "maxFileCharacters",
                                         "maxCoreMemoryCharacters", "fileCharacterLimits" };
    json_t *overrides = json_object_get(c->config, "fileCharacterLimits"), *item;
    uint64_t version;
    size_t i;

    check_keys(c, c->config, known, ARRAY_LEN(known));
    if (!whole_of(json_object_get(c->config, "version"), 1, &version) || version != 1)
        say(c, CONFIG_FILE, "'version' must be 1");
    check_number(c, "maxDepth", 0);
    check_number(c, "maxFileCharacters", 1);
    check_number(c, "maxCoreMemoryCharacters", 1);
    if (overrides != NULL && !json_is_array(overrides))
        say(c, CONFIG_FILE, "'fileCharacterLimits' must be a list");
    json_array_foreach(overrides, i, item) check_override(c, i, item);
}

/* ---- files ---- */

static const layout_file *find(const check *c, memfs_str path)
{
    size_t low = 0, high = c->n_files;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = str_compare(c->files[mid].path, path);

        if (order == 0)
            return &c->files[mid];
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

static bool is_regular(const layout_file *file)
{
    return (file->mode & S_TYPE) == S_REGULAR;
}

/* Is there a configuration that the client would go on with?  *ret_is_bad: one that it would not.
 */
static void open_config(check *c, bool *ret_is_bad)
{
    const layout_file *file = find(c, CONFIG_FILE);
    size_t before = c->n_violations;

    *ret_is_bad = false;
    if (file == NULL)
        return;
    if (!is_regular(file)) {
        say(c, CONFIG_FILE, "must be a regular file, not a link");
    } else {
        c->config = load(file->text);
        if (json_is_object(c->config))
            check_fields(c);
        else
            say(c, CONFIG_FILE, "is not a JSON object");
    }
    *ret_is_bad = c->n_violations > before;
}

static bool is_flat_skill(memfs_str path)
{
    if (!str_starts_with(path, SKILLS) || !str_ends_with(path, MEMFS_STR(".md")))
        return false;
    path = str_from(path, SKILLS.len);
    return path.len > 3 && memchr(path.ptr, '/', path.len) == NULL;
}

static memfs_str base_name(memfs_str path)
{
    const char *slash = memrchr(path.ptr, '/', path.len);

    return slash != NULL ? str_from(path, (size_t)(slash - path.ptr) + 1) : path;
}

/* The first parent folder without a MEMORY.md; false: all have one. */
static bool find_bare_folder(const check *c, memfs_str path, memfs_str *ret)
{
    for (size_t i = 0; i < path.len; i++) {
        _cleanup_(buf_dispose) memfs_buf index = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

        if (path.ptr[i] != '/')
            continue;
        buf_add(&index, path.ptr, i + 1);
        buf_add_str(&index, INDEX_FILE);
        *ret = str_make(path.ptr, i);
        if (find(c, buf_str(&index)) == NULL)
            return true;
    }
    return false;
}

/* "system/x.md", "memory/reference/a/b.md" */
static bool is_legacy_memory(memfs_str path)
{
    if (str_starts_with(path, MEMFS_STR("memory/")))
        path = str_from(path, 7);
    return str_starts_with(path, MEMFS_STR("system/")) ||
           str_starts_with(path, MEMFS_STR("reference/"));
}

static bool is_memory(const check *c, memfs_str path)
{
    if (!str_ends_with(path, MEMFS_STR(".md")) || str_starts_with(path, SKILLS))
        return false;
    return c->policy != LAYOUT_LEGACY || is_legacy_memory(path);
}

/* ---- front matter ---- */

typedef struct seen {
    unsigned name, description;
} seen;

static bool next_line(memfs_str *text, bool *is_done, memfs_str *ret)
{
    memfs_str rest;

    if (*is_done)
        return false;
    *is_done = !str_split(*text, '\n', ret, &rest);
    if (*is_done)
        *ret = *text;
    else
        *text = rest;
    return true;
}

static memfs_str trim_spaces(memfs_str s)
{
    while (s.len > 0 && s.ptr[0] == ' ')
        s = str_from(s, 1);
    while (s.len > 0 && s.ptr[s.len - 1] == ' ')
        s.len--;
    return s;
}

static void check_line(check *c, memfs_str path, memfs_str line, seen *s)
{
    memfs_str key, value;
    char shown[64];
    unsigned *n;

    if (!str_split(line, ':', &key, &value))
        key = value = line;
    key = trim_spaces(key);
    value = trim_spaces(value);
    escape_text(key, shown, sizeof(shown));
    if (str_equal(key, MEMFS_STR("name"))) {
        n = &s->name;
    } else if (str_equal(key, MEMFS_STR("description"))) {
        n = &s->description;
    } else {
        say(c, path, "front matter may only have 'name' and 'description': remove the line '%s'",
            shown);
        return;
    }
    if (++*n > 1)
        say(c, path, "'%s' is in the front matter twice: keep one of them", shown);
    if (value.len == 0 || str_equal(value, MEMFS_STR("\"\"")) || str_equal(value, MEMFS_STR("''")))
        say(c, path, "'%s' is empty: give it a value of one line", shown);
}

static bool is_closed(memfs_str text, bool is_done)
{
    memfs_str line;

    while (next_line(&text, &is_done, &line))
        if (str_equal(line, FENCE))
            return true;
    return false;
}

static void check_front_matter(check *c, const layout_file *file)
{
    memfs_str text = file->text, line;
    bool is_done = false;
    seen s = { 0, 0 };

    next_line(&text, &is_done, &line);
    if (str_equal(base_name(file->path), INDEX_FILE)) {
        if (str_equal(line, FENCE))
            say(c, file->path,
                "an index has no front matter: remove the lines from '---' to '---'");
        return;
    }
    if (!str_equal(line, FENCE)) {
        say(c, file->path,
            "front matter is missing: the first line must be exactly '---'%s, then 'name: ...', "
            "'description: ...' and a line '---'",
            str_starts_with(line, FENCE) ? " (without blanks, and with LF line ends)" : "");
        return;
    }
    if (!is_closed(text, is_done)) {
        say(c, file->path, "front matter is not closed: add a line that is exactly '---' under it");
        return;
    }
    while (next_line(&text, &is_done, &line) && !str_equal(line, FENCE))
        if (line.len > 0)
            check_line(c, file->path, line, &s);
    if (s.name == 0)
        say(c, file->path, "front matter lacks 'name': add a line 'name: ...'");
    if (s.description == 0)
        say(c, file->path, "front matter lacks 'description': add a line 'description: ...'");
}

static void check_texts(check *c)
{
    memfs_str ignored;

    for (size_t i = 0; i < c->n_files; i++) {
        const layout_file *file = &c->files[i];

        if (is_flat_skill(file->path) && !file->is_unchanged)
            say(c, file->path, "a skill is a folder: move it to skills/<name>/SKILL.md");
        if (!is_memory(c, file->path) || !is_regular(file))
            continue;
        if (c->policy == LAYOUT_ROOT_MARKER && find_bare_folder(c, file->path, &ignored))
            continue;
        check_front_matter(c, file);
    }
}

/* ---- the tree and its limits ---- */

static void check_indexes(check *c)
{
    memfs_str bare;
    char shown[160]; /* twice in what is said, which has room for 512 */

    if (find(c, INDEX_FILE) == NULL)
        say(c, INDEX_FILE, "the root index is gone: put MEMORY.md back");
    for (size_t i = 0; i < c->n_files; i++) {
        memfs_str path = c->files[i].path;

        if (!is_memory(c, path) || !find_bare_folder(c, path, &bare))
            continue;
        escape_text(bare, shown, sizeof(shown));
        say(c, path, "the folder '%s' has no index: add %s/MEMORY.md, or move the file", shown,
            shown);
    }
}

/* How many bytes the character at `at` has. */
static size_t char_length(memfs_str s, size_t at)
{
    uint32_t ignored;
    size_t next = at;

    str_utf8_next(s, &next, &ignored);
    return next - at;
}

/*
 * One step of the pattern over all places of the path at once: at[i] says that the pattern so far
 * can end before byte i.  Returns how many bytes of the pattern the step took.
 */
static size_t glob_step(memfs_str pattern, memfs_str path, const bool *at, bool *next)
{
    bool is_star = pattern.ptr[0] == '*';
    bool is_deep = is_star && pattern.len > 1 && pattern.ptr[1] == '*';
    bool is_folders = is_deep && pattern.len > 2 && pattern.ptr[2] == '/';
    bool any = false;

    memset(next, 0, path.len + 1);
    for (size_t i = 0; i <= path.len; i++) {
        bool has_char = i < path.len;

        if (is_folders) {
            next[i] |= at[i] || (any && path.ptr[i - 1] == '/');
            any |= at[i];
        } else if (is_star) {
            any = (any && i > 0 && (is_deep || path.ptr[i - 1] != '/')) || at[i];
            next[i] = any;
        } else if (pattern.ptr[0] == '?') {
            if (at[i] && has_char && path.ptr[i] != '/')
                next[i + char_length(path, i)] = true;
        } else if (at[i] && has_char && path.ptr[i] == pattern.ptr[0]) {
            next[i + 1] = true;
        }
    }
    return is_folders ? 3 : is_deep ? 2 : 1;
}

static bool glob_fits(memfs_str pattern, memfs_str path)
{
    _cleanup_(mem_freep) bool *at = mem_alloc(path.len + 1), *next = mem_alloc(path.len + 1);

    at[0] = true;
    while (pattern.len > 0) {
        bool *done = at;

        pattern = str_from(pattern, glob_step(pattern, path, at, next));
        at = next;
        next = done;
    }
    return at[path.len];
}

/* The most characters that a file may have; UINT64_MAX: any number. */
static uint64_t limit_of(const check *c, memfs_str path, memfs_str *ret_pattern)
{
    json_t *item;
    size_t i;

    *ret_pattern = MEMFS_STR("maxFileCharacters");
    json_array_foreach(json_object_get(c->config, "fileCharacterLimits"), i, item)
    {
        uint64_t max = UINT64_MAX;

        *ret_pattern = text_of(json_object_get(item, "pattern"));
        if (!glob_fits(*ret_pattern, path))
            continue;
        whole_of(json_object_get(item, "maxCharacters"), 1, &max);
        return max;
    }
    *ret_pattern = MEMFS_STR("maxFileCharacters");
    return c->limits.max_file_chars;
}

static void check_size(check *c, const layout_file *file, uint64_t n_chars)
{
    memfs_str source;
    uint64_t max = limit_of(c, file->path, &source);
    char shown[128];

    if (n_chars <= max)
        return;
    say(c, file->path,
        "it has %llu characters, %llu are allowed ('%s'): split it, or move detail into other "
        "files",
        (unsigned long long)n_chars, (unsigned long long)max,
        escape_text(source, shown, sizeof(shown)));
}

static void check_place(check *c, const layout_file *file)
{
    uint32_t depth = 0;

    for (size_t i = 0; i < file->path.len; i++)
        depth += file->path.ptr[i] == '/';
    if (depth > c->limits.max_depth)
        say(c, file->path, "it lies %u folders deep, %u are allowed ('maxDepth'): move it up",
            depth, c->limits.max_depth);
}

static void check_limits(check *c)
{
    uint64_t n_root_chars = 0;

    for (size_t i = 0; i < c->n_files; i++) {
        const layout_file *file = &c->files[i];
        uint64_t n_chars;

        if (!is_memory(c, file->path))
            continue;
        if (!is_regular(file)) {
            say(c, file->path, "it is a link: commit a regular file in its place");
            continue;
        }
        check_place(c, file);
        n_chars = chars_of(file->text);
        check_size(c, file, n_chars);
        if (memchr(file->path.ptr, '/', file->path.len) == NULL)
            n_root_chars += n_chars;
    }
    if (c->policy == LAYOUT_ROOT_MARKER && n_root_chars > c->limits.max_root_chars)
        say(c, MEMFS_STR("*.md"),
            "the files at the root have %llu characters together, %llu are allowed "
            "('maxCoreMemoryCharacters'): move detail into folders with a MEMORY.md",
            (unsigned long long)n_root_chars, (unsigned long long)c->limits.max_root_chars);
}

size_t layout_check(layout_policy policy, const layout_limits *limits, const layout_file *files,
                    size_t n_files, layout_fn fn, void *ctx)
{
    check c = { .policy = policy,
                .limits = { UINT32_MAX, UINT64_MAX, UINT64_MAX },
                .files = files,
                .n_files = n_files,
                .fn = fn,
                .ctx = ctx };
    bool is_bad;

    if (policy != LAYOUT_LEGACY)
        check_texts(&c);
    open_config(&c, &is_bad);
    if (policy == LAYOUT_ROOT_MARKER)
        c.limits = *limits;
    else
        read_limits(c.config, &c.limits);
    if (policy == LAYOUT_ROOT_MARKER)
        check_indexes(&c);
    if (!is_bad && (policy == LAYOUT_ROOT_MARKER || c.config != NULL))
        check_limits(&c);
    json_decref(c.config);
    return c.n_violations;
}
