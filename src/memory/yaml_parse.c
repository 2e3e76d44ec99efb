/*
 * From tokens to nodes: a graph in which an alias is the node that its anchor named.
 *
 * A stack of open collections stands in for recursion, so the depth of the text costs heap and not
 * stack.  Each step looks at the next token and does one of three things for the collection on top:
 * begin its next member (a leaf, which is done at once, or a collection, which is pushed), supply
 * the null that an omitted member is, or close it.  Whatever is done is handed to the collection
 * below.
 */
#include "memory/yaml_int.h"

#include "base/mem.h"

#include <stdlib.h>

typedef enum frame_kind {
    BLOCK_SEQ,
    INDENTLESS_SEQ, /* "- " at the column of the key that it belongs to */
    BLOCK_MAP,
    FLOW_SEQ,
    FLOW_PAIR, /* [a: b] */
    FLOW_MAP,
} frame_kind;

typedef enum frame_state { AT_KEY, AT_VALUE, AT_MISSING_VALUE, AT_END } frame_state;

typedef struct frame {
    frame_kind kind;
    frame_state state;
    bool is_first;
    yaml_node *node;
    yaml_node *key; /* waiting for its value */
} frame;

typedef struct named {
    memfs_str name;
    union {
        yaml_node *node;  /* an anchor's */
        memfs_str prefix; /* a tag handle's */
    };
} named;

typedef struct parser {
    yaml_scanner *s;
    frame *frames;
    size_t n_frames, cap_frames;
    named *anchors;
    size_t n_anchors, cap_anchors;
    yaml_index anchor_index;
    named *handles; /* from %TAG */
    size_t n_handles, cap_handles;
} parser;

#define BIT(token) (1u << (token))

/* ---- tokens ---- */

static bool fail(parser *p, const char *what)
{
    const yaml_scanner *s = p->s;
    size_t line = s->first < s->end ? s->tokens[s->first].line : s->line + 1;

    return yaml_fault_set(p->s->fault, MEMFS_EINVALID, false, line, what);
}

/* The type of the next token; STREAM_END after a fault, which stops every loop. */
static yaml_token_type next_type(parser *p)
{
    const yaml_token *token = yaml_peek(p->s);

    return token != NULL ? token->type : TOKEN_STREAM_END;
}

static bool has_fault(const parser *p)
{
    return p->s->fault->code != MEMFS_OK;
}

static bool is_next(parser *p, unsigned types)
{
    return (BIT(next_type(p)) & types) != 0;
}

static bool skip_if(parser *p, yaml_token_type type)
{
    if (next_type(p) != type || has_fault(p))
        return false;
    yaml_skip(p->s);
    return true;
}

/* ---- nodes ---- */

static yaml_node *new_node(parser *p, yaml_kind kind, yaml_tag tag, memfs_str text)
{
    yaml_node *node = yaml_alloc(p->s->doc, sizeof(*node));

    node->kind = kind;
    node->tag = tag;
    node->text = text;
    node->line = (uint32_t)p->s->line + 1;
    return node;
}

static yaml_node *empty_node(parser *p)
{
    return new_node(p, NODE_SCALAR, TAG_NULL, MEMFS_STR(""));
}

typedef struct properties {
    bool has_anchor, has_tag;
    memfs_str anchor;
    memfs_str tag; /* in full */
} properties;

static bool is_bare_tag(const properties *props)
{
    return props->has_tag && str_equal(props->tag, MEMFS_STR("!"));
}

static yaml_tag tag_of(const properties *props)
{
    static const struct {
        const char *name;
        yaml_tag tag;
    } known[] = {
        { "str", TAG_STR },     { "null", TAG_NULL },
        { "bool", TAG_BOOL },   { "int", TAG_INT },
        { "float", TAG_FLOAT }, { "binary", TAG_BINARY },
        { "seq", TAG_SEQ },     { "timestamp", TAG_TIMESTAMP },
        { "omap", TAG_OMAP },   { "pairs", TAG_PAIRS },
        { "map", TAG_MAP },     { "set", TAG_SET },
        { "merge", TAG_MERGE }, { "value", TAG_VALUE },
    };
    memfs_str prefix = MEMFS_STR("tag:yaml.org,2002:");

    if (!str_starts_with(props->tag, prefix))
        return TAG_UNKNOWN;
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (str_equal(str_from(props->tag, prefix.len), str_of(known[i].name)))
            return known[i].tag;
    return TAG_UNKNOWN;
}

static bool find_handle(const parser *p, memfs_str handle, memfs_str *ret_prefix)
{
    for (size_t i = 0; i < p->n_handles; i++) {
        if (str_equal(p->handles[i].name, handle)) {
            *ret_prefix = p->handles[i].prefix;
            return true;
        }
    }
    *ret_prefix = handle.len == 1 ? MEMFS_STR("!") : MEMFS_STR("tag:yaml.org,2002:");
    return str_equal(handle, MEMFS_STR("!")) || str_equal(handle, MEMFS_STR("!!"));
}

static bool take_tag(parser *p, properties *props)
{
    const yaml_token token = *yaml_peek(p->s);
    memfs_str prefix = MEMFS_STR("");
    char *full;

    if (token.has_handle && !find_handle(p, token.handle, &prefix))
        return fail(p, "an unknown tag handle");
    full = yaml_alloc(p->s->doc, prefix.len + token.text.len + 1);
    if (prefix.len > 0)
        memcpy(full, prefix.ptr, prefix.len);
    memcpy(full + prefix.len, token.text.ptr, token.text.len);
    props->tag = str_make(full, prefix.len + token.text.len);
    props->has_tag = true;
    yaml_skip(p->s);
    return true;
}

/* "&anchor !tag" in either order, each at most once. */
static bool take_properties(parser *p, properties *props)
{
    while ((!props->has_anchor && is_next(p, BIT(TOKEN_ANCHOR))) ||
           (!props->has_tag && is_next(p, BIT(TOKEN_TAG)))) {
        if (next_type(p) == TOKEN_TAG) {
            if (!take_tag(p, props))
                return false;
        } else {
            props->has_anchor = true;
            props->anchor = yaml_peek(p->s)->text;
            yaml_skip(p->s);
        }
    }
    return !has_fault(p);
}

typedef struct name_search {
    const parser *p;
    memfs_str name;
} name_search;

static bool is_anchor(const void *ctx, uint32_t number)
{
    const name_search *search = ctx;

    return str_equal(search->p->anchors[number].name, search->name);
}

static yaml_node *find_anchor(const parser *p, memfs_str name)
{
    name_search search = { p, name };
    uint32_t at = yaml_index_find(&p->anchor_index, yaml_hash_bytes(name), is_anchor, &search);

    return at == UINT32_MAX ? NULL : p->anchors[at].node;
}

static bool set_anchor(parser *p, const properties *props, yaml_node *node)
{
    if (!props->has_anchor)
        return true;
    if (find_anchor(p, props->anchor) != NULL)
        return fail(p, "an anchor of that name is there already");
    p->anchors = yaml_grow(p->s->doc, p->anchors, p->n_anchors, &p->cap_anchors, sizeof(named));
    p->anchors[p->n_anchors++] = (named){ .name = props->anchor, .node = node };
    yaml_index_add(&p->anchor_index, yaml_hash_bytes(props->anchor));
    return true;
}

/* ---- beginning a member ---- */

typedef enum node_flags { IN_FLOW = 0, IN_BLOCK = 1, MAY_BE_INDENTLESS = 2 } node_flags;

static bool push_frame(parser *p, frame_kind kind, yaml_node *node)
{
    if (p->n_frames >= YAML_MAX_DEPTH)
        return yaml_fault_set(p->s->fault, MEMFS_ELIMIT, true, node->line, "nested too deep");
    p->frames = yaml_grow(p->s->doc, p->frames, p->n_frames, &p->cap_frames, sizeof(frame));
    p->frames[p->n_frames++] = (frame){ .kind = kind, .is_first = true, .node = node };
    return true;
}

static bool begin_collection(parser *p, frame_kind kind, const properties *props)
{
    bool is_seq = kind == BLOCK_SEQ || kind == INDENTLESS_SEQ || kind == FLOW_SEQ;
    yaml_tag tag = is_seq ? TAG_SEQ : TAG_MAP;
    yaml_node *node;

    if (props->has_tag && !is_bare_tag(props))
        tag = tag_of(props);
    node = new_node(p, is_seq ? NODE_SEQ : NODE_MAP, tag, MEMFS_STR(""));
    return set_anchor(p, props, node) && push_frame(p, kind, node);
}

static bool make_scalar(parser *p, const properties *props, memfs_str text, bool is_plain,
                        yaml_node **ret)
{
    yaml_tag tag = TAG_STR;

    if ((is_plain && !props->has_tag) || is_bare_tag(props))
        tag = yaml_resolve(text);
    else if (props->has_tag)
        tag = tag_of(props);
    *ret = new_node(p, NODE_SCALAR, tag, text);
    return set_anchor(p, props, *ret);
}

static bool take_alias(parser *p, yaml_node **ret)
{
    *ret = find_anchor(p, yaml_peek(p->s)->text);
    if (*ret == NULL)
        return fail(p, "an alias whose anchor is not there");
    yaml_skip(p->s);
    return true;
}

static bool opens_collection(yaml_token_type type, bool is_block, frame_kind *ret)
{
    switch (type) {
    case TOKEN_FLOW_SEQ_START: *ret = FLOW_SEQ; return true;
    case TOKEN_FLOW_MAP_START: *ret = FLOW_MAP; return true;
    case TOKEN_BLOCK_SEQ_START: *ret = BLOCK_SEQ; return is_block;
    case TOKEN_BLOCK_MAP_START: *ret = BLOCK_MAP; return is_block;
    default: return false;
    }
}

static bool begin_content(parser *p, unsigned flags, const properties *props, yaml_node **ret)
{
    yaml_token_type type = next_type(p);
    bool is_block = (flags & IN_BLOCK) != 0;
    frame_kind kind;

    if (has_fault(p))
        return false;
    if (type == TOKEN_BLOCK_ENTRY && (flags & MAY_BE_INDENTLESS) != 0)
        return begin_collection(p, INDENTLESS_SEQ, props);
    if (type == TOKEN_SCALAR) {
        const yaml_token token = *yaml_peek(p->s);

        yaml_skip(p->s);
        return make_scalar(p, props, token.text, token.is_plain, ret);
    }
    if (opens_collection(type, is_block, &kind)) {
        yaml_skip(p->s);
        return begin_collection(p, kind, props);
    }
    if (props->has_anchor || props->has_tag)
        return make_scalar(p, props, MEMFS_STR(""), !props->has_tag, ret);
    return fail(p, "expected a value");
}

/* Either *ret is a finished node, or a collection has been pushed and *ret stays NULL. */
static bool begin_node(parser *p, unsigned flags, yaml_node **ret)
{
    properties props = { .has_anchor = false };

    if (is_next(p, BIT(TOKEN_ALIAS)))
        return take_alias(p, ret);
    return take_properties(p, &props) && begin_content(p, flags, &props, ret);
}

/* A node, or the null of an omitted one when a token of `omits` comes next. */
static bool begin_or_empty(parser *p, unsigned omits, unsigned flags, yaml_node **ret)
{
    if (!is_next(p, omits))
        return begin_node(p, flags, ret);
    *ret = empty_node(p);
    return !has_fault(p);
}

/* ---- steps ---- */

static bool close_frame(parser *p, yaml_node **ret)
{
    *ret = p->frames[--p->n_frames].node;
    return true;
}

static bool step_block_seq(parser *p, yaml_node **ret)
{
    if (skip_if(p, TOKEN_BLOCK_ENTRY))
        return begin_or_empty(p, BIT(TOKEN_BLOCK_ENTRY) | BIT(TOKEN_BLOCK_END), IN_BLOCK, ret);
    if (skip_if(p, TOKEN_BLOCK_END))
        return close_frame(p, ret);
    return fail(p, "expected another list item or the end of the list");
}

static bool step_indentless_seq(parser *p, yaml_node **ret)
{
    if (!skip_if(p, TOKEN_BLOCK_ENTRY))
        return has_fault(p) ? false : close_frame(p, ret);
    return begin_or_empty(
        p, BIT(TOKEN_BLOCK_ENTRY) | BIT(TOKEN_KEY) | BIT(TOKEN_VALUE) | BIT(TOKEN_BLOCK_END),
        IN_BLOCK, ret);
}

static bool step_block_map(parser *p, frame *f, yaml_node **ret)
{
    const unsigned omits = BIT(TOKEN_KEY) | BIT(TOKEN_VALUE) | BIT(TOKEN_BLOCK_END);

    if (f->state == AT_VALUE) {
        f->state = AT_KEY;
        if (skip_if(p, TOKEN_VALUE))
            return begin_or_empty(p, omits, IN_BLOCK | MAY_BE_INDENTLESS, ret);
        *ret = empty_node(p);
        return !has_fault(p);
    }
    if (skip_if(p, TOKEN_KEY)) {
        f->state = AT_VALUE;
        return begin_or_empty(p, omits, IN_BLOCK | MAY_BE_INDENTLESS, ret);
    }
    if (skip_if(p, TOKEN_BLOCK_END))
        return close_frame(p, ret);
    return fail(p, "expected another key or the end of the mapping");
}

/* At the start of a member: the ',' before it, or the end. */
static bool flow_separator(parser *p, frame *f, yaml_token_type end, bool *ret_is_end)
{
    *ret_is_end = skip_if(p, end);
    if (*ret_is_end)
        return true;
    if (!f->is_first && !skip_if(p, TOKEN_FLOW_ENTRY))
        return fail(p, "expected ',' or the closing bracket");
    f->is_first = false;
    *ret_is_end = skip_if(p, end);
    return !has_fault(p);
}

static bool step_flow_seq(parser *p, frame *f, yaml_node **ret)
{
    bool is_end;

    if (!flow_separator(p, f, TOKEN_FLOW_SEQ_END, &is_end))
        return false;
    if (is_end)
        return close_frame(p, ret);
    if (skip_if(p, TOKEN_KEY))
        return push_frame(p, FLOW_PAIR, new_node(p, NODE_MAP, TAG_MAP, MEMFS_STR("")));
    return begin_node(p, IN_FLOW, ret);
}

static bool step_flow_value(parser *p, yaml_token_type end, yaml_node **ret)
{
    if (skip_if(p, TOKEN_VALUE))
        return begin_or_empty(p, BIT(TOKEN_FLOW_ENTRY) | BIT(end), IN_FLOW, ret);
    *ret = empty_node(p);
    return !has_fault(p);
}

static bool step_flow_pair(parser *p, frame *f, yaml_node **ret)
{
    switch (f->state) {
    case AT_KEY:
        f->state = AT_VALUE;
        return begin_or_empty(p, BIT(TOKEN_VALUE) | BIT(TOKEN_FLOW_ENTRY) | BIT(TOKEN_FLOW_SEQ_END),
                              IN_FLOW, ret);
    case AT_VALUE: f->state = AT_END; return step_flow_value(p, TOKEN_FLOW_SEQ_END, ret);
    default: return close_frame(p, ret);
    }
}

static bool step_flow_map(parser *p, frame *f, yaml_node **ret)
{
    bool is_end;

    if (f->state != AT_KEY) {
        bool is_missing = f->state == AT_MISSING_VALUE;

        f->state = AT_KEY;
        if (!is_missing)
            return step_flow_value(p, TOKEN_FLOW_MAP_END, ret);
        *ret = empty_node(p);
        return true;
    }
    if (!flow_separator(p, f, TOKEN_FLOW_MAP_END, &is_end))
        return false;
    if (is_end)
        return close_frame(p, ret);
    if (!skip_if(p, TOKEN_KEY)) {
        f->state = AT_MISSING_VALUE;
        return begin_node(p, IN_FLOW, ret);
    }
    f->state = AT_VALUE;
    return begin_or_empty(p, BIT(TOKEN_VALUE) | BIT(TOKEN_FLOW_ENTRY) | BIT(TOKEN_FLOW_MAP_END),
                          IN_FLOW, ret);
}

static bool step(parser *p, yaml_node **ret)
{
    frame *f = &p->frames[p->n_frames - 1];

    switch (f->kind) {
    case BLOCK_SEQ: return step_block_seq(p, ret);
    case INDENTLESS_SEQ: return step_indentless_seq(p, ret);
    case BLOCK_MAP: return step_block_map(p, f, ret);
    case FLOW_SEQ: return step_flow_seq(p, f, ret);
    case FLOW_PAIR: return step_flow_pair(p, f, ret);
    case FLOW_MAP: return step_flow_map(p, f, ret);
    }
    return false;
}

static void hand_over(parser *p, frame *f, yaml_node *member)
{
    yaml_node *node = f->node;

    if (node->kind == NODE_SEQ) {
        node->items = yaml_grow(p->s->doc, node->items, node->n, &node->cap, sizeof(*node->items));
        node->items[node->n++] = member;
    } else if (f->key == NULL) {
        f->key = member;
    } else {
        node->pairs = yaml_grow(p->s->doc, node->pairs, node->n, &node->cap, sizeof(*node->pairs));
        node->pairs[node->n++] = (yaml_node_pair){ f->key, member };
        f->key = NULL;
    }
}

static bool parse_tree(parser *p, yaml_node **ret)
{
    *ret = NULL;
    if (!begin_node(p, IN_BLOCK, ret))
        return false;
    while (p->n_frames > 0) {
        if (*ret != NULL)
            hand_over(p, &p->frames[p->n_frames - 1], *ret);
        *ret = NULL;
        if (!step(p, ret))
            return false;
    }
    return true;
}

/* ---- documents ---- */

#define DIRECTIVES                                                                                 \
    (BIT(TOKEN_DIRECTIVE_YAML) | BIT(TOKEN_DIRECTIVE_TAG) | BIT(TOKEN_DIRECTIVE_OTHER))

static bool take_directive(parser *p, bool *has_version)
{
    const yaml_token token = *yaml_peek(p->s);

    if (token.type == TOKEN_DIRECTIVE_YAML) {
        memfs_str major = token.text;

        while (major.len > 1 && major.ptr[0] == '0')
            major = str_from(major, 1);
        if (*has_version || !str_equal(major, MEMFS_STR("1")))
            return fail(p, "a second %YAML, or one of another version");
        *has_version = true;
    } else if (token.type == TOKEN_DIRECTIVE_TAG) {
        for (size_t i = 0; i < p->n_handles; i++)
            if (str_equal(p->handles[i].name, token.handle))
                return fail(p, "a second %TAG for the same handle");
        p->handles = yaml_grow(p->s->doc, p->handles, p->n_handles, &p->cap_handles, sizeof(named));
        p->handles[p->n_handles++] = (named){ .name = token.handle, .prefix = token.text };
    }
    yaml_skip(p->s);
    return true;
}

static bool parse_explicit_document(parser *p, yaml_node **ret)
{
    bool has_version = false;

    while (is_next(p, DIRECTIVES) && !has_fault(p))
        if (!take_directive(p, &has_version))
            return false;
    if (!skip_if(p, TOKEN_DOCUMENT_START))
        return fail(p, "expected '---' after directives");
    if (is_next(p, DIRECTIVES | BIT(TOKEN_DOCUMENT_START) | BIT(TOKEN_DOCUMENT_END) |
                       BIT(TOKEN_STREAM_END))) {
        *ret = empty_node(p);
        return !has_fault(p);
    }
    return parse_tree(p, ret);
}

static bool parse_only_document(parser *p, yaml_node **ret)
{
    bool is_good;

    *ret = NULL;
    if (is_next(p, BIT(TOKEN_STREAM_END)))
        return !has_fault(p);
    if (is_next(p, DIRECTIVES | BIT(TOKEN_DOCUMENT_START)))
        is_good = parse_explicit_document(p, ret);
    else
        is_good = parse_tree(p, ret);
    if (!is_good)
        return false;
    while (skip_if(p, TOKEN_DOCUMENT_END))
        continue;
    if (!is_next(p, BIT(TOKEN_STREAM_END)))
        return fail(p, "expected the end of the document");
    return !has_fault(p);
}

bool yaml_parse(yaml_scanner *s, yaml_node **ret)
{
    parser p = { .s = s };
    bool is_good = parse_only_document(&p, ret);

    yaml_index_dispose(&p.anchor_index);
    return is_good;
}
