/*
 * prompt.c - see prompt.h.
 *
 * Labels are paths.  Both trees are made of nodes whose children are kept sorted by bytes, which is
 * the order of code points that the reference sorts by.  A name may be a block and a folder at
 * once: then its value comes first, and its children after it.  Of two blocks with one label the
 * last counts.
 */
#include "memory/prompt.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PERSONA "system/persona"
#define SYSTEM "system/"
#define SKILLS "skills/"
#define MEMORY_WORD "{CORE_MEMORY}"

typedef struct node {
    memfs_str name;
    const prompt_block *block; /* NULL: a folder alone */
    struct node **children;
    size_t n, cap;
} node;

/* ---- trees ---- */

static node *node_new(memfs_str name)
{
    node *made = mem_alloc(sizeof(*made));

    made->name = name;
    return made;
}

static void node_free(node *x)
{
    for (size_t i = 0; i < x->n; i++)
        node_free(x->children[i]);
    free(x->children);
    free(x);
}

static void node_freep(node **x)
{
    node_free(*x);
}

static node *child_of(node *x, memfs_str name)
{
    size_t low = 0, high = x->n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = str_compare(x->children[mid]->name, name);

        if (order == 0)
            return x->children[mid];
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    if (x->n == x->cap) {
        x->cap = x->cap == 0 ? 8 : x->cap * 2;
        x->children = mem_realloc(x->children, x->cap, sizeof(*x->children));
    }
    memmove(x->children + low + 1, x->children + low, (x->n - low) * sizeof(*x->children));
    x->n++;
    return x->children[low] = node_new(name);
}

/* Empty parts of a label count nothing. */
static void add_block(node *root, memfs_str path, const prompt_block *block)
{
    memfs_str part, rest = path;
    node *at = root;

    while (rest.len > 0) {
        if (!str_split(rest, '/', &part, &rest)) {
            part = rest;
            rest = MEMFS_STR("");
        }
        if (part.len > 0)
            at = child_of(at, part);
    }
    if (at != root)
        at->block = block;
}

/* ---- text ---- */

static memfs_str without_newlines(memfs_str s)
{
    while (s.len > 0 && s.ptr[s.len - 1] == '\n')
        s.len--;
    return s;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
}

static memfs_str stripped(memfs_str s)
{
    while (s.len > 0 && is_space(s.ptr[s.len - 1]))
        s.len--;
    while (s.len > 0 && is_space(s.ptr[0]))
        s = str_from(s, 1);
    return s;
}

static void put_pad(memfs_buf *out, size_t depth)
{
    for (size_t i = 0; i < depth; i++)
        buf_puts(out, "  ");
}

static void put_three(memfs_buf *out, const char *before, memfs_str text, const char *after)
{
    buf_puts(out, before);
    buf_add_str(out, text);
    buf_puts(out, after);
}

/* ---- <memory> ---- */

/* `path` is where the node is below system/, with its own name. */
static void put_block(memfs_buf *out, const node *x, memfs_str path, size_t depth)
{
    memfs_str description = stripped(x->block->description);
    memfs_str value = without_newlines(x->block->value);

    put_pad(out, depth + 1);
    put_three(out, "<projection>$MEMORY_DIR/" SYSTEM, path, ".md</projection>\n");
    if (description.len > 0) {
        put_pad(out, depth + 1);
        put_three(out, "<description>", description, "</description>\n");
    }
    if (value.len > 0) {
        put_pad(out, depth + 1);
        put_three(out, "", value, "\n");
    }
}

static void put_tags(memfs_buf *out, const node *x, memfs_buf *path, size_t depth)
{
    for (size_t i = 0; i < x->n; i++) {
        const node *child = x->children[i];
        size_t len = path->len;

        if (len > 0)
            buf_putc(path, '/');
        buf_add_str(path, child->name);
        put_pad(out, depth);
        put_three(out, "<", child->name, ">\n");
        if (child->block != NULL)
            put_block(out, child, buf_str(path), depth);
        put_tags(out, child, path, depth + 1);
        put_pad(out, depth);
        put_three(out, "</", child->name, ">\n");
        buf_truncate(path, len);
    }
}

/* ---- <external_projection> ---- */

/* Of the name with its ".md"; -1 behind its end. */
static int file_char(memfs_str name, size_t at)
{
    if (at < name.len)
        return (unsigned char)name.ptr[at];
    return at - name.len < 3 ? ".md"[at - name.len] : -1;
}

static int compare_files(const void *a, const void *b)
{
    memfs_str x = (*(node *const *)a)->name, y = (*(node *const *)b)->name;
    size_t at = 0;

    while (file_char(x, at) >= 0 && file_char(x, at) == file_char(y, at))
        at++;
    return file_char(x, at) - file_char(y, at);
}

/* Folders first, then files by their names with ".md"; a name may be both. */
static void put_names(memfs_buf *out, node *x, memfs_buf *indent)
{
    size_t n_left = 0, len = indent->len;

    for (size_t i = 0; i < x->n; i++)
        n_left += (x->children[i]->n > 0) + (x->children[i]->block != NULL);
    for (int is_file = 0; is_file < 2; is_file++) {
        if (is_file && x->n > 1)
            qsort(x->children, x->n, sizeof(*x->children), compare_files);
        for (size_t i = 0; i < x->n; i++) {
            node *child = x->children[i];

            if (is_file ? child->block == NULL : child->n == 0)
                continue;
            n_left--;
            buf_add_str(out, buf_str(indent));
            put_three(out, n_left == 0 ? "└── " : "├── ", child->name, is_file ? ".md\n" : "/\n");
            if (is_file)
                continue;
            buf_puts(indent, n_left == 0 ? "    " : "│   ");
            put_names(out, child, indent);
            buf_truncate(indent, len);
        }
    }
}

/* ---- the whole ---- */

static void put_self(memfs_buf *out, const prompt_block *persona)
{
    buf_puts(out, "\n\n<self>\n<projection>$MEMORY_DIR/" PERSONA ".md</projection>\n");
    buf_add_str(out, without_newlines(persona->value));
    buf_puts(out, "\n</self>");
}

static void put_trees(memfs_buf *out, const node *system, node *external)
{
    _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    buf_puts(out, "\n\n<memory>\n");
    put_tags(out, system, &path, 0);
    if (external->n > 0) {
        buf_puts(out, "<external_projection>\n${MEMORY_DIR}/\n");
        put_names(out, external, &path);
        buf_puts(out, "</external_projection>\n");
    }
    buf_puts(out, "</memory>");
}

static void put_memory(memfs_buf *out, const prompt_block *blocks, size_t n)
{
    _cleanup_(node_freep) node *system = node_new(MEMFS_STR(""));
    _cleanup_(node_freep) node *external = node_new(MEMFS_STR(""));
    const prompt_block *persona = NULL;
    bool is_any = false;

    for (size_t i = 0; i < n; i++) {
        memfs_str label = blocks[i].label;
        bool is_system = str_starts_with(label, MEMFS_STR(SYSTEM));

        is_any = is_any || is_system;
        if (str_equal(label, MEMFS_STR(PERSONA)))
            persona = &blocks[i];
        else if (is_system)
            add_block(system, str_from(label, sizeof(SYSTEM) - 1), &blocks[i]);
        else if (!str_starts_with(label, MEMFS_STR(SKILLS)))
            add_block(external, stripped(label), &blocks[i]);
    }
    if (!is_any)
        return;
    buf_puts(out,
             "\n\nReminder: <projection> contains the local path of the memory file projection.");
    if (persona != NULL)
        put_self(out, persona);
    if (system->n > 0 || external->n > 0)
        put_trees(out, system, external);
}

static void put_metadata(memfs_buf *out, const prompt_agent *agent)
{
    time_t s = (time_t)(agent->compiled_at_us / 1000000);
    char text[64] = "";
    struct tm tm;

    if (gmtime_r(&s, &tm) != NULL)
        strftime(text, sizeof(text), "%Y-%m-%d %I:%M:%S %p UTC+0000", &tm);
    put_three(out, "\n\n<memory_metadata>\n- AGENT_ID: ", agent->id, "\n");
    buf_printf(out,
               "- CONVERSATION_ID: default\n"
               "- System prompt last recompiled: %s\n"
               "- 0 previous messages between you and the user are stored in recall memory\n"
               "</memory_metadata>",
               text);
}

void prompt_compile(const prompt_agent *agent, const prompt_block *blocks, size_t n, memfs_buf *out)
{
    _cleanup_(buf_dispose) memfs_buf memory = MEMFS_BUF_INIT(out->max_bytes);
    const char *at = agent->system.ptr, *end = at + agent->system.len, *found;
    bool is_placed = false;

    put_memory(&memory, blocks, n);
    put_metadata(&memory, agent);
    while (agent->system.len > 0 &&
           (found = memmem(at, (size_t)(end - at), MEMORY_WORD, sizeof(MEMORY_WORD) - 1)) != NULL) {
        buf_add(out, at, (size_t)(found - at));
        buf_add_str(out, buf_str(&memory));
        at = found + sizeof(MEMORY_WORD) - 1;
        is_placed = true;
    }
    if (agent->system.len > 0)
        buf_add(out, at, (size_t)(end - at));
    if (!is_placed) {
        buf_puts(out, "\n\n");
        buf_add_str(out, buf_str(&memory));
    }
}
