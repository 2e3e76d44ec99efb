#include "store/merge_int.h"

#include "base/hash.h"
#include "base/mem.h"
#include "store/oidmap.h"

#include <stdlib.h>

/*
 * The edits of a merge put into a's tree.
 *
 * Edits are sorted so that what concerns one folder lies together, the folder itself before what is
 * below it ('/' sorts before every other byte).  Folders that no edit concerns are not opened;
 * those that one does are on a stack, and written when they are left, innermost first.
 *
 * Names that cannot stand beside each other are found then, in folders that got a new name:
 *
 *   file against folder   the folder keeps the name, since the paths of many hang on it
 *   twins                 (equal but for case or form) the smaller id keeps it; folders before files
 *
 * The other gets merge_second_name, as does what was to be beside another from the start.  If that
 * name is taken, by other bytes, the id in it is counted up until it is free.  Twins that one of
 * the sides had are let be: nobody asks us to rename them.  (Of more than MAX_LET_BE of one name
 * nobody looks who had which.)
 */

#define MAX_LET_BE 8

typedef struct slot {
    tree_entry e;
    bool is_gone, is_new, is_loser;
    merge_rule rule; /* of a loser */
    char *name;      /* owned: a second name */
} slot;

typedef struct level {
    git_odb_object *object;
    slot *slots;
    size_t n, cap, n_base; /* the first n_base are sorted: the folder as it was */
    size_t next, end;      /* edits */
    size_t path_len;
    memfs_str name; /* in the folder above */
    bool is_dirty, has_new_name;
} level;

typedef struct builder {
    merge_plan *m;
    memfs_buf path;
    level *levels;
    size_t depth, cap;
    memfs_oid root;
} builder;

static void level_dispose(level *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->slots[i].name);
    free(l->slots);
    git_odb_object_free(l->object);
}

static void builder_dispose(builder *b)
{
    while (b->depth > 0)
        level_dispose(&b->levels[--b->depth]);
    free(b->levels);
    buf_dispose(&b->path);
}

/* ---- edits in order ---- */

static int compare_paths(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    if (*a == *b)
        return 0;
    if (*a == '\0' || *b == '\0')
        return *a == '\0' ? -1 : 1;
    if (*a == '/' || *b == '/')
        return *a == '/' ? -1 : 1;
    return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
}

static int compare_edits(const void *a, const void *b)
{
    const merge_edit *x = a, *y = b;
    int order = compare_paths(x->path, y->path);

    if (order != 0)
        return order;
    if (x->is_folder != y->is_folder)
        return x->is_folder - y->is_folder;
    if (x->is_beside != y->is_beside)
        return x->is_beside - y->is_beside;
    return (x->seq > y->seq) - (x->seq < y->seq);
}

static bool is_overruled(const merge_plan *m, size_t i)
{
    const merge_edit *e = &m->edits[i];

    if (e->is_beside || i + 1 == m->n_edits)
        return false;
    return !e[1].is_beside && e[1].is_folder == e->is_folder && strcmp(e->path, e[1].path) == 0;
}

/* ---- slots ---- */

static void add_slot(level *l, const tree_entry *e)
{
    if (l->n == l->cap) {
        l->cap = l->cap == 0 ? 16 : l->cap * 2;
        l->slots = mem_realloc(l->slots, l->cap, sizeof(*l->slots));
    }
    l->slots[l->n++] = (slot){ .e = *e };
}

static int compare_slots(const void *a, const void *b)
{
    return repo_entry_compare(&((const slot *)a)->e, &((const slot *)b)->e);
}

/* Of this name and kind; NULL: there is none.  New ones of one name lie together at the end. */
static slot *find_slot(level *l, const tree_entry *like)
{
    slot key = { .e = *like }, *found = NULL;

    if (l->n_base > 0)
        found = bsearch(&key, l->slots, l->n_base, sizeof(*l->slots), compare_slots);
    for (size_t i = l->n; found == NULL && i > l->n_base; i--) {
        if (!str_equal(l->slots[i - 1].e.name, like->name))
            break;
        if (!l->slots[i - 1].is_loser && repo_entry_compare(&l->slots[i - 1].e, like) == 0)
            found = &l->slots[i - 1];
    }
    return found;
}

/* entry->has false removes what is there. */
static void put(level *l, memfs_str name, bool is_folder, const merge_entry *entry)
{
    tree_entry e = { is_folder ? TREE_MODE_FOLDER : TREE_MODE_FILE, name, entry->id };
    slot *there = find_slot(l, &e);

    if (entry->has)
        e.mode = entry->mode;
    if (there == NULL && !entry->has)
        return;
    if (there == NULL) {
        add_slot(l, &e);
        l->slots[l->n - 1].is_new = true;
        l->has_new_name = true;
        l->is_dirty = true;
        return;
    }
    if (there->is_gone != !entry->has ||
        (entry->has && (there->e.mode != e.mode || !oid_equal(&there->e.id, &e.id))))
        l->is_dirty = true;
    there->is_gone = !entry->has;
    if (entry->has) {
        there->e.mode = e.mode;
        there->e.id = e.id;
    }
}

static void put_beside(level *l, memfs_str name, const merge_edit *edit)
{
    tree_entry e = { edit->entry.mode, name, edit->entry.id };

    add_slot(l, &e);
    l->slots[l->n - 1].is_new = true;
    l->slots[l->n - 1].is_loser = true;
    l->slots[l->n - 1].rule = edit->rule;
    l->has_new_name = true;
    l->is_dirty = true;
}

/* ---- names that cannot stand beside each other ---- */

typedef struct named {
    size_t at; /* slot */
    char *key;
    size_t len;
} named;

/* taken: which slot has a name, by the hash of its key; filled only when somebody needs another. */
typedef struct names {
    named *list; /* by key, then by rank */
    size_t n;
    level *l;
    oidmap taken;
    oidmap known[2]; /* names that each side has, by hash; read when there are twins */
    bool has_known;
} names;

static void names_dispose(names *ns)
{
    for (size_t i = 0; i < ns->n; i++)
        free(ns->list[i].key);
    free(ns->list);
    oidmap_dispose(&ns->taken);
    oidmap_dispose(&ns->known[0]);
    oidmap_dispose(&ns->known[1]);
}

static char *key_of(memfs_str name, size_t *ret_len)
{
    memfs_buf key = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    policy_name_key(name, &key);
    return buf_take(&key, ret_len);
}

/* Folders, then what stands under its own name, by id, by name. */
static int compare_ranks(const slot *a, const slot *b)
{
    bool fa = repo_entry_is_folder(&a->e), fb = repo_entry_is_folder(&b->e);
    int order;

    if (fa != fb)
        return fa ? -1 : 1;
    if (a->is_loser != b->is_loser)
        return a->is_loser ? 1 : -1;
    order = memcmp(a->e.id.id, b->e.id.id, sizeof(a->e.id.id));
    return order != 0 ? order : str_compare(a->e.name, b->e.name);
}

static int compare_named(const void *a, const void *b, void *ctx)
{
    const named *x = a, *y = b;
    const level *l = ctx;
    size_t shorter = x->len < y->len ? x->len : y->len;
    int order = memcmp(x->key, y->key, shorter);

    if (order == 0)
        order = (x->len > y->len) - (x->len < y->len);
    return order != 0 ? order : compare_ranks(&l->slots[x->at], &l->slots[y->at]);
}

static void gather_names(level *l, names *ret)
{
    *ret = (names){ .l = l, .taken = OIDMAP_INIT, .known = { OIDMAP_INIT, OIDMAP_INIT } };
    ret->list = mem_alloc((l->n + 1) * sizeof(*ret->list));
    for (size_t i = 0; i < l->n; i++) {
        named *to = &ret->list[ret->n];

        if (l->slots[i].is_gone)
            continue;
        to->at = i;
        to->key = key_of(l->slots[i].e.name, &to->len);
        ret->n++;
    }
    qsort_r(ret->list, ret->n, sizeof(*ret->list), compare_named, l);
}

/* The names that a side has in the folder that is being left, by hash. */
static memfs_code read_known(builder *b, int at, oidmap *ret, memfs_error *err)
{
    _cleanup_(repo_odb_object_freep) git_odb_object *object = NULL;
    merge_entry folder;
    tree_entry e;
    size_t pos = 0;
    bool is_bad;
    memfs_code rc = merge_plan_lookup(b->m, at, buf_str(&b->path), &folder, err);

    if (rc < 0 || !folder.has || folder.mode != TREE_MODE_FOLDER)
        return rc;
    rc = repo_read_tree(b->m->r, &folder.id, &object, err);
    while (rc == MEMFS_OK && tree_next(repo_raw(object), &pos, &e, &is_bad)) {
        memfs_oid hash;

        hash_git_blob(e.name, &hash);
        oidmap_put(ret, &hash, 0);
    }
    return rc;
}

static memfs_code read_known_once(builder *b, names *ns, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    for (int i = 0; rc == MEMFS_OK && !ns->has_known && i < 2; i++)
        rc = read_known(b, MERGE_SIDE_A + i, &ns->known[i], err);
    ns->has_known = true;
    return rc;
}

/* Did a side have both names beside each other? */
static bool is_known_pair(const names *ns, memfs_str x, memfs_str y)
{
    memfs_oid hx, hy;

    if (str_equal(x, y))
        return false;
    hash_git_blob(x, &hx);
    hash_git_blob(y, &hy);
    return (oidmap_has(&ns->known[0], &hx) && oidmap_has(&ns->known[0], &hy)) ||
           (oidmap_has(&ns->known[1], &hx) && oidmap_has(&ns->known[1], &hy));
}

/* The slots of one key, the highest rank first: who keeps the name? */
static void judge_twins(const names *ns, const named *group, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        slot *s = &ns->l->slots[group[i].at];

        for (size_t k = 0; k < i && !s->is_loser; k++) {
            const slot *before = &ns->l->slots[group[k].at];

            if (before->is_loser ||
                (n <= MAX_LET_BE && is_known_pair(ns, before->e.name, s->e.name)))
                continue;
            s->is_loser = true;
            s->rule = MERGE_RULE_BESIDE;
        }
    }
}

static bool same_key(const named *a, const named *b)
{
    return a->len == b->len && memcmp(a->key, b->key, a->len) == 0;
}

static memfs_code find_losers(builder *b, names *ns, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0, n; rc == MEMFS_OK && i < ns->n; i += n) {
        for (n = 1; i + n < ns->n && same_key(&ns->list[i], &ns->list[i + n]);)
            n++;
        if (n == 1)
            continue;
        rc = read_known_once(b, ns, err);
        if (rc == MEMFS_OK)
            judge_twins(ns, &ns->list[i], n);
    }
    return rc;
}

/* The n-th second name of a path, short enough for the policy. */
static char *second_name(const merge_plan *m, memfs_str path, const memfs_oid *id, uint32_t n)
{
    memfs_oid other = *id;
    uint32_t digits = (uint32_t)other.id[0] << 24 | (uint32_t)other.id[1] << 16 |
                      (uint32_t)other.id[2] << 8 | other.id[3];
    const char *slash = memrchr(path.ptr, '/', path.len);
    size_t folder = slash != NULL ? (size_t)(slash - path.ptr) + 1 : 0;
    char *name;

    digits += n << 4; /* the name shows seven digits of them */
    for (int i = 0; i < 4; i++)
        other.id[i] = (uint8_t)(digits >> (24 - 8 * i));
    name = merge_second_name(path, &other);
    if (strlen(name) > m->p.max_path_bytes) { /* the digits alone, then */
        free(name);
        name = mem_printf("%.*s%07x", (int)folder, path.ptr, digits >> 4);
    }
    return name;
}

static memfs_oid hash_of_key(memfs_str name)
{
    memfs_buf key = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_oid hash;

    policy_name_key(name, &key);
    hash_git_blob(buf_str(&key), &hash);
    buf_dispose(&key);
    return hash;
}

static void take_name(names *ns, size_t at)
{
    memfs_oid hash = hash_of_key(ns->l->slots[at].e.name);

    oidmap_put(&ns->taken, &hash, at);
}

/* Is the name free?  If the very thing has it already, that is as good: *ret_is_there. */
static bool is_free(const names *ns, const slot *me, memfs_str name, bool *ret_is_there)
{
    memfs_oid hash = hash_of_key(name);
    const slot *other;
    size_t at;

    *ret_is_there = false;
    if (!oidmap_get(&ns->taken, &hash, &at))
        return true;
    other = &ns->l->slots[at];
    *ret_is_there = str_equal(other->e.name, name) && other->e.mode == me->e.mode &&
                    oid_equal(&other->e.id, &me->e.id);
    return false;
}

static void rename_loser(builder *b, names *ns, size_t at)
{
    slot *s = &ns->l->slots[at];
    size_t folder = b->path.len;
    bool is_there = false;
    char *path = NULL;

    buf_add_str(&b->path, s->e.name);
    for (uint32_t n = 0; path == NULL; n++) {
        path = second_name(b->m, buf_str(&b->path), &s->e.id, n);
        if (is_free(ns, s, str_of(path + folder), &is_there) || is_there)
            break;
        free(path);
        path = NULL;
    }
    if (b->m->notes != NULL)
        merge_note_add_path(b->m->notes, s->rule, buf_str(&b->path), str_of(path));
    buf_truncate(&b->path, folder);
    s->is_gone = is_there;
    s->name = mem_strdup(path + folder);
    s->e.name = str_of(s->name);
    free(path);
    if (!is_there)
        take_name(ns, at);
}

static memfs_code part_names(builder *b, level *l, memfs_error *err)
{
    _cleanup_(names_dispose) names ns;
    size_t n_losers = 0;
    memfs_code rc;

    gather_names(l, &ns);
    rc = find_losers(b, &ns, err);
    for (size_t i = 0; i < ns.n; i++)
        n_losers += l->slots[ns.list[i].at].is_loser;
    if (rc < 0 || n_losers == 0)
        return rc;
    for (size_t i = 0; i < ns.n; i++)
        if (!l->slots[ns.list[i].at].is_loser)
            take_name(&ns, ns.list[i].at);
    for (size_t i = 0; i < ns.n; i++)
        if (l->slots[ns.list[i].at].is_loser)
            rename_loser(b, &ns, ns.list[i].at);
    return MEMFS_OK;
}

/* ---- folders ---- */

static memfs_code read_slots(repo *r, level *l, const memfs_oid *tree, memfs_error *err)
{
    memfs_code rc = repo_read_tree(r, tree, &l->object, err);
    bool is_bad = false;
    size_t pos = 0;
    tree_entry e;

    while (rc == MEMFS_OK && tree_next(repo_raw(l->object), &pos, &e, &is_bad))
        add_slot(l, &e);
    l->n_base = l->n;
    return rc == MEMFS_OK && is_bad
               ? memfs_fail(err, MEMFS_ECORRUPT, "a tree object cannot be read")
               : rc;
}

/* tree NULL: a new folder. */
static memfs_code enter(builder *b, memfs_str name, const memfs_oid *tree, size_t next, size_t end,
                        memfs_error *err)
{
    level *l;

    if (b->depth == b->cap) {
        b->cap = b->cap == 0 ? 8 : b->cap * 2;
        b->levels = mem_realloc(b->levels, b->cap, sizeof(*b->levels));
    }
    if (b->depth > 0) {
        buf_add_str(&b->path, name);
        buf_putc(&b->path, '/');
    }
    l = &b->levels[b->depth++];
    *l = (level){ .next = next, .end = end, .path_len = b->path.len, .name = name };
    return tree != NULL ? read_slots(b->m->r, l, tree, err) : MEMFS_OK;
}

static memfs_code write_level(builder *b, level *l, merge_entry *ret, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf raw = MEMFS_BUF_INIT(OBJECT_MAX_TREE_BYTES);
    memfs_code rc = MEMFS_OK;
    bool has_any = false;

    if (l->has_new_name)
        rc = part_names(b, l, err);
    if (rc < 0)
        return rc;
    if (l->n > 0)
        qsort(l->slots, l->n, sizeof(*l->slots), compare_slots);
    for (size_t i = 0; i < l->n; i++) {
        const tree_entry *e = &l->slots[i].e;

        if (l->slots[i].is_gone)
            continue;
        has_any = true;
        buf_printf(&raw, "%o ", (unsigned)e->mode);
        buf_add_str(&raw, e->name);
        buf_putc(&raw, '\0');
        buf_add(&raw, e->id.id, sizeof(e->id.id));
    }
    *ret = (merge_entry){ has_any || b->depth == 1, TREE_MODE_FOLDER, { { 0 } } };
    rc = buf_check(&raw, "a merged folder", err);
    if (rc == MEMFS_OK && ret->has)
        rc = merge_write(b->m->r, GIT_OBJECT_TREE, buf_str(&raw), &ret->id, err);
    return rc;
}

static memfs_code leave(builder *b, memfs_error *err)
{
    level *l = &b->levels[b->depth - 1];
    bool is_dirty = l->is_dirty;
    memfs_str name = l->name;
    merge_entry made;
    memfs_code rc = MEMFS_OK;

    buf_truncate(&b->path, l->path_len);
    if (is_dirty)
        rc = write_level(b, l, &made, err);
    if (rc < 0)
        return rc;
    level_dispose(l);
    b->depth--;
    if (!is_dirty)
        return MEMFS_OK;
    if (b->depth == 0)
        b->root = made.id;
    else
        put(&b->levels[b->depth - 1], name, true, &made);
    return MEMFS_OK;
}

/* All edits below one folder: where they end. */
static size_t end_of_folder(const merge_plan *m, size_t at, size_t end, size_t len)
{
    const char *prefix = m->edits[at].path;

    while (at < end && strncmp(m->edits[at].path, prefix, len) == 0)
        at++;
    return at;
}

static memfs_code apply_edit(builder *b, memfs_error *err)
{
    level *l = &b->levels[b->depth - 1];
    const merge_edit *e = &b->m->edits[l->next];
    memfs_str rest = str_from(str_of(e->path), l->path_len), name, below;
    tree_entry folder = { TREE_MODE_FOLDER, { NULL, 0 }, { { 0 } } };
    size_t at = l->next;
    const slot *there;

    if (str_split(rest, '/', &name, &below)) {
        folder.name = name;
        there = find_slot(l, &folder);
        l->next = end_of_folder(b->m, at, l->end, l->path_len + name.len + 1);
        buf_truncate(&b->path, l->path_len);
        return enter(b, name, there != NULL && !there->is_gone ? &there->e.id : NULL, at, l->next,
                     err);
    }
    l->next++;
    if (e->is_beside)
        put_beside(l, rest, e);
    else if (!is_overruled(b->m, at))
        put(l, rest, e->is_folder, &e->entry);
    return MEMFS_OK;
}

memfs_code merge_build(merge_plan *m, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(builder_dispose) builder b = { .m = m,
                                             .path = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED),
                                             .root = m->root[MERGE_SIDE_A] };
    memfs_code rc;

    if (m->n_edits > 0)
        qsort(m->edits, m->n_edits, sizeof(*m->edits), compare_edits);
    rc = enter(&b, MEMFS_STR(""), &m->root[MERGE_SIDE_A], 0, m->n_edits, err);
    while (rc == MEMFS_OK && b.depth > 0) {
        const level *l = &b.levels[b.depth - 1];

        rc = l->next < l->end ? apply_edit(&b, err) : leave(&b, err);
    }
    *ret = b.root;
    return rc;
}
