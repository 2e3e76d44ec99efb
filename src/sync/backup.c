/*
 * backup.c - a copy of a home, and a home from a copy.
 *
 * A backup is a folder that looks like a home without its cache:
 *
 *     manifest.json                              written last
 *     state.db                                   taken first, a consistent copy by itself
 *     config, known_hosts                        as they are, if they are there
 *     repository/<org>/<agent>/repo.git          each taken under its agent's lock
 *
 *     { "format": 1, "memfs": "<version>", "made_at": "<ISO 8601>",
 *       "settings": [ "config", … ],
 *       "agents":   [ { "id", "org", "tip": "<main>", "files": <regular files below repo.git> } ],
 *       "left_out": [ { "id", "why" } ] }
 *
 * Why this is a state that some instant had (D7): an agent is in the list because the copy of the
 * state has it, and the state learns of an agent after its repository was made; a repository does
 * not change while its lock is held, so its refs and objects belong together.  Agents are
 * independent of one another, so an instant each is enough.
 *
 * secrets/ is not copied: a backup is carried about.  config names files that hold secrets and has
 * none itself; one that seems to hold one all the same stays behind, and it is said.
 *
 * Both ways work on <target>.partial-<pid>-<n>, sync it whole, and rename: a target that exists is
 * complete.  Of two that make the same target at once, the second finds it there.
 */
#include "sync/follow.h"
#include "sync/upkeep_int.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/redact.h"
#include "store/care.h"

#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define FORMAT 1
#define MANIFEST_MAX_BYTES (256u << 20)
#define SETTINGS_MAX_BYTES (4u << 20)
#define SETTINGS_NOT_KEPT                                                                          \
    "it holds a secret: a restart or SIGHUP of the server moves that to secrets/"

/* What an operator has set, beside the memories. */
static const char *const SETTINGS[] = { "config", "known_hosts" };

/* A name of this work alone: a server may be asked for the same backup twice. */
static char *partial_path(const char *target)
{
    static atomic_uint counter;
    size_t n = strlen(target);

    while (n > 1 && target[n - 1] == '/')
        n--;
    return mem_printf("%.*s.partial-%ld-%u", (int)n, target, (long)getpid(),
                      atomic_fetch_add(&counter, 1));
}

static memfs_code begin_partial(const char *staged, memfs_error *err)
{
    memfs_code rc = fs_remove_tree(staged, err);

    return rc < 0 ? rc : fs_mkdirs(staged, err);
}

static memfs_code finish_partial(const char *staged, const char *target, memfs_error *err)
{
    memfs_code rc = fs_sync_tree(staged, err);

    return rc < 0 ? rc : fs_rename(staged, target, err);
}

static void drop_partial(const char *staged)
{
    memfs_error ignored;

    if (fs_remove_tree(staged, &ignored) < 0)
        return; /* the failure that brought us here is the one to tell */
}

/* Regular files below path, folders not counted. */
static size_t count_files(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *e;
    struct stat st;
    size_t n = 0;
    char *child;

    while (dir != NULL && (e = readdir(dir)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        child = mem_printf("%s/%s", path, e->d_name);
        if (lstat(child, &st) == 0)
            n += S_ISDIR(st.st_mode) ? count_files(child) : 1;
        free(child);
    }
    if (dir != NULL)
        closedir(dir);
    return n;
}

/* The folder that is to hold a repository, made; *ret_to is the repository's own path in it. */
static memfs_code make_place(const char *root, const char *org, const char *id, char **ret_to,
                             memfs_error *err)
{
    _cleanup_(mem_freep) char *name = home_repo_name(str_of(org), str_of(id));
    _cleanup_(mem_freep) char *folder = NULL;

    *ret_to = mem_printf("%s/%s", root, name);
    folder = mem_strndup(*ret_to, strlen(*ret_to) - strlen("/repo.git"));
    return fs_mkdirs(folder, err);
}

/* ---- backup ---- */

typedef struct copy {
    upkeep_round r;
    const char *staged;
    bool has_settings[ARRAY_LEN(SETTINGS)];
    memfs_buf agents, left_out; /* JSON arrays, as they grow */
    json_writer agents_json, left_out_json;
} copy;

static memfs_code list_id(const state_agent *row, void *ctx, memfs_error *err)
{
    (void)err;
    id_list_add(ctx, row->id);
    return MEMFS_OK;
}

/* The agents of the copied state, not of the live one, which has moved on. */
static memfs_code list_copied(const char *staged, id_list *ids, memfs_error *err)
{
    agent_query all = { .which = AGENTS_ALL, .with_shared = true };
    state *s = NULL;
    memfs_code rc;

    rc = state_open_sqlite(staged, &s, err);
    if (rc < 0)
        return rc;
    rc = state_agents(s, &all, list_id, ids, err);
    state_close(s);
    id_list_sort(ids);
    return rc;
}

static memfs_code copy_locked(copy *c, agent *a, memfs_error *err)
{
    _cleanup_(mem_freep) char *to = NULL;
    char hex[MEMFS_OID_HEX + 1];
    follow_result now;
    memfs_oid tip;
    memfs_code rc = MEMFS_OK;

    if (home_is_shared(c->r.h)) /* a backup is whole, wherever its parts are kept */
        rc = agent_follow(c->r.h, a, false, &now, err);
    if (rc == MEMFS_OK)
        rc = agent_recover(c->r.h, a, err);
    if (rc == MEMFS_OK && agent_is_fenced(a, err))
        rc = err->code;
    if (rc == MEMFS_OK)
        rc = store_tip(c->r.h->store, a->repo, &tip, err);
    if (rc == MEMFS_OK)
        rc = make_place(c->staged, a->org, a->id, &to, err);
    if (rc == MEMFS_OK)
        rc = store_copy(c->r.h->store, a->repo, to, err);
    if (rc < 0)
        return rc;
    oid_hex(&tip, hex);
    jw_object(&c->agents_json);
    jw_key_text(&c->agents_json, "id", a->id);
    jw_key_text(&c->agents_json, "org", a->org);
    jw_key_text(&c->agents_json, "tip", hex);
    jw_key_int(&c->agents_json, "files", (int64_t)count_files(to));
    jw_object_end(&c->agents_json);
    return MEMFS_OK;
}

static memfs_code copy_agent(copy *c, const char *id, memfs_error *err)
{
    bool is_known;
    memfs_code rc;
    agent *a;

    rc = home_entry_kept(c->r.h, str_of(id), &a, &is_known, err);
    if (rc < 0)
        return rc;
    agent_lock(a);
    rc = copy_locked(c, a, err);
    agent_unlock(a);
    return rc;
}

static void leave_out(copy *c, const char *id, const char *why)
{
    c->r.ret->n_failed++;
    round_finding(&c->r, id, "failed", "", "%s", why);
    jw_object(&c->left_out_json);
    jw_key_text(&c->left_out_json, "id", id);
    jw_key_text(&c->left_out_json, "why", why);
    jw_object_end(&c->left_out_json);
}

/* A full disk ends the backup; one damaged repository must not keep the others from being saved. */
static memfs_code copy_agents(copy *c, const id_list *ids, memfs_error *err)
{
    memfs_code rc;

    for (size_t i = 0; i < ids->n; i++) {
        c->r.ret->n_agents++;
        rc = copy_agent(c, ids->ids[i], err);
        if (rc == MEMFS_ENOSPACE)
            return rc;
        if (rc < 0)
            leave_out(c, ids->ids[i], err->msg);
        if (!round_progress(&c->r, i + 1, ids->n, ids->ids[i]))
            return memfs_fail(err, MEMFS_EUNAVAIL, "the backup was stopped; nothing is kept of it");
    }
    return MEMFS_OK;
}

/* Who logs in to an ssh host is no secret, though it stands where others' are. */
static void hide_ssh_users(memfs_buf *text)
{
    char *at = text->ptr;
    size_t n;

    while ((at = strstr(at, "ssh://")) != NULL) {
        at += strlen("ssh://");
        n = strcspn(at, ":@/ \t\r\n\"");
        if (at[n] == '@')
            at[n] = '/';
    }
}

static bool holds_secret(memfs_str bytes)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(SETTINGS_MAX_BYTES + 1);
    _cleanup_(buf_dispose) memfs_buf clean = MEMFS_BUF_INIT(2 * SETTINGS_MAX_BYTES);

    buf_add_str(&text, bytes);
    hide_ssh_users(&text);
    redact_add(&clean, buf_str(&text), NULL, 0);
    return !str_equal(buf_str(&clean), buf_str(&text));
}

static memfs_code copy_setting(copy *c, size_t i, memfs_error *err)
{
    _cleanup_(mem_freep) char *from = mem_printf("%s/%s", c->r.h->path, SETTINGS[i]);
    _cleanup_(mem_freep) char *to = mem_printf("%s/%s", c->staged, SETTINGS[i]);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(SETTINGS_MAX_BYTES);
    memfs_code rc;

    if (!fs_exists(from))
        return MEMFS_OK;
    rc = fs_read(from, &text, err);
    if (rc < 0)
        return rc;
    if (holds_secret(buf_str(&text))) {
        round_finding(&c->r, "", "left-out", SETTINGS[i], "%s", SETTINGS_NOT_KEPT);
        return MEMFS_OK;
    }
    c->has_settings[i] = true;
    return fs_write_atomic(to, buf_str(&text), 0600, err);
}

static memfs_code copy_settings(copy *c, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < ARRAY_LEN(SETTINGS); i++)
        rc = copy_setting(c, i, err);
    return rc;
}

static void put_settings(const copy *c, json_writer *w)
{
    jw_key(w, "settings");
    jw_array(w);
    for (size_t i = 0; i < ARRAY_LEN(SETTINGS); i++)
        if (c->has_settings[i])
            jw_text(w, SETTINGS[i]);
    jw_array_end(w);
}

static memfs_code write_manifest(copy *c, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/manifest.json", c->staged);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MANIFEST_MAX_BYTES);
    json_writer w = JSON_WRITER_INIT(&text);
    char now[CLOCK_ISO_LEN];
    memfs_code rc;

    clock_iso(clock_wall_us(), now);
    jw_object(&w);
    jw_key_int(&w, "format", FORMAT);
    jw_key_text(&w, "memfs", MEMFS_VERSION);
    jw_key_text(&w, "made_at", now);
    put_settings(c, &w);
    jw_key(&w, "agents");
    jw_raw(&w, buf_str(&c->agents));
    jw_key(&w, "left_out");
    jw_raw(&w, buf_str(&c->left_out));
    jw_object_end(&w);
    buf_putc(&text, '\n');
    rc = buf_check(&text, "the manifest", err);
    return rc < 0 ? rc : fs_write_atomic(path, buf_str(&text), 0600, err);
}

static memfs_code fill_backup(copy *c, memfs_error *err)
{
    _cleanup_(mem_freep) char *db = mem_printf("%s/state.db", c->staged);
    _cleanup_(id_list_dispose) id_list ids = { NULL, 0, 0 };
    memfs_code rc;

    rc = state_copy(c->r.h->state, db, err);
    if (rc == MEMFS_OK)
        rc = list_copied(c->staged, &ids, err);
    if (rc < 0)
        return memfs_context(err, "could not copy the state");
    jw_array(&c->agents_json);
    jw_array(&c->left_out_json);
    rc = copy_agents(c, &ids, err);
    jw_array_end(&c->agents_json);
    jw_array_end(&c->left_out_json);
    if (rc == MEMFS_OK)
        rc = copy_settings(c, err);
    return rc < 0 ? rc : write_manifest(c, err);
}

memfs_code upkeep_backup(home *h, const char *to, const upkeep_watcher *w, upkeep_result *ret,
                         memfs_error *err)
{
    _cleanup_(mem_freep) char *staged = partial_path(to);
    copy c = { .r = { .h = h, .w = w, .ret = ret },
               .staged = staged,
               .agents = MEMFS_BUF_INIT(MANIFEST_MAX_BYTES),
               .left_out = MEMFS_BUF_INIT(MANIFEST_MAX_BYTES) };
    memfs_code rc;

    *ret = (upkeep_result){ 0 };
    if (fs_exists(to))
        return memfs_fail(err, MEMFS_EEXISTS, "the backup's target is there already");
    c.agents_json = (json_writer)JSON_WRITER_INIT(&c.agents);
    c.left_out_json = (json_writer)JSON_WRITER_INIT(&c.left_out);
    rc = begin_partial(staged, err);
    if (rc == MEMFS_OK)
        rc = fill_backup(&c, err);
    if (rc == MEMFS_OK)
        rc = finish_partial(staged, to, err);
    if (rc < 0)
        drop_partial(staged);
    buf_dispose(&c.agents);
    buf_dispose(&c.left_out);
    return rc;
}

/* ---- restore ---- */

typedef struct entry {
    const char *id, *org; /* in the manifest */
    memfs_oid tip;
    size_t n_files;
} entry;

static void decref(json_t **json)
{
    json_decref(*json);
}

static memfs_code read_manifest(const char *from, json_t **ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/manifest.json", from);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MANIFEST_MAX_BYTES);
    json_error_t where;
    json_t *json;

    if (fs_read(path, &text, err) < 0)
        return memfs_context(err, "this is no backup, or not a complete one");
    json = json_loadb(text.ptr, text.len, 0, &where);
    if (json == NULL)
        return memfs_fail(err, MEMFS_ECORRUPT, "the manifest does not parse: line %d: %s",
                          where.line, where.text);
    if (json_integer_value(json_object_get(json, "format")) != FORMAT ||
        !json_is_array(json_object_get(json, "agents"))) {
        json_decref(json);
        return memfs_fail(err, MEMFS_EINVALID,
                          "the backup has a format that this memfs cannot read");
    }
    *ret = json;
    return MEMFS_OK;
}

/* Ids become paths: what is no id ends the restore. */
static memfs_code read_entry(const json_t *json, entry *ret, memfs_error *err)
{
    const char *tip = json_string_value(json_object_get(json, "tip"));

    ret->id = json_string_value(json_object_get(json, "id"));
    ret->org = json_string_value(json_object_get(json, "org"));
    ret->n_files = (size_t)json_integer_value(json_object_get(json, "files"));
    if (!ids_is_memory(str_of(ret->id)) || !ids_is_prefixed_uuid4(str_of(ret->org), "org") ||
        !oid_parse(str_of(tip), &ret->tip))
        return memfs_fail(err, MEMFS_ECORRUPT, "the manifest has an entry that is no agent");
    return MEMFS_OK;
}

static memfs_code restore_agent(upkeep_round *r, store *s, const char *from, const char *staged,
                                const entry *e, memfs_error *err)
{
    _cleanup_(mem_freep) char *name = home_repo_name(str_of(e->org), str_of(e->id));
    _cleanup_(mem_freep) char *source = mem_printf("%s/%s", from, name);
    _cleanup_(mem_freep) char *copied = NULL;
    memfs_oid tip;
    memfs_code rc;

    r->ret->n_agents++;
    rc = make_place(staged, e->org, e->id, &copied, err);
    if (rc == MEMFS_OK)
        rc = fs_copy_tree(source, copied, err);
    if (rc == MEMFS_OK && count_files(copied) != e->n_files)
        rc = memfs_fail(err, MEMFS_ECORRUPT, "it has %zu files; the manifest says %zu",
                        count_files(copied), e->n_files);
    if (rc == MEMFS_OK)
        rc = store_tip(s, name, &tip, err);
    if (rc == MEMFS_OK && !oid_equal(&tip, &e->tip))
        rc = memfs_fail(err, MEMFS_ECORRUPT, "main is not at the commit that the manifest says");
    if (rc == MEMFS_OK)
        rc = store_fsck(s, name, err);
    if (rc < 0) {
        r->ret->n_failed++;
        round_finding(r, e->id, "failed", "", "%s", err->msg);
    }
    return rc;
}

/*
 * All are looked at, so that a person reads once what is wrong; one that fails ends it after that.
 */
static memfs_code restore_agents(upkeep_round *r, store *s, const char *from, const char *staged,
                                 const json_t *agents, id_list *ids, memfs_error *err)
{
    memfs_code rc, worst = MEMFS_OK;
    size_t n = json_array_size(agents);
    memfs_error trouble;
    entry e;

    for (size_t i = 0; i < n; i++) {
        rc = read_entry(json_array_get(agents, i), &e, err);
        if (rc < 0)
            return rc;
        id_list_add(ids, str_of(e.id));
        rc = restore_agent(r, s, from, staged, &e, &trouble);
        if (rc == MEMFS_ENOSPACE)
            return memfs_fail(err, rc, "%s", trouble.msg);
        if (rc < 0)
            worst =
                memfs_fail(err, MEMFS_ECORRUPT, "the backup of agent '%s': %s", e.id, trouble.msg);
        if (!round_progress(r, i + 1, n, e.id))
            return memfs_fail(err, MEMFS_EUNAVAIL,
                              "the restore was stopped; nothing is kept of it");
    }
    return worst;
}

struct state_check {
    id_list *listed;
    size_t n;
};

static memfs_code check_listed(const state_agent *row, void *ctx, memfs_error *err)
{
    struct state_check *c = ctx;
    char id[IDS_MAX_LEN + 1];

    snprintf(id, sizeof(id), "%.*s", (int)row->id.len, row->id.ptr);
    c->n++;
    if (!id_list_has(c->listed, id))
        return memfs_fail(err, MEMFS_ECORRUPT, "the state has agent '%s', the manifest has not",
                          id);
    return MEMFS_OK;
}

/* Those that the backup had to leave out stay known: they are missing, not new (H4). */
static memfs_code list_left_out(const json_t *manifest, id_list *ids, memfs_error *err)
{
    const json_t *left_out = json_object_get(manifest, "left_out");
    memfs_str id;

    for (size_t i = 0; i < json_array_size(left_out); i++) {
        id = str_of(json_string_value(json_object_get(json_array_get(left_out, i), "id")));
        if (!ids_is_memory(id))
            return memfs_fail(err, MEMFS_ECORRUPT, "the manifest leaves out what is no agent");
        id_list_add(ids, id);
    }
    return MEMFS_OK;
}

static memfs_code check_state(const char *staged, const json_t *manifest, id_list *ids,
                              memfs_error *err)
{
    struct state_check c = { .listed = ids };
    agent_query all = { .which = AGENTS_ALL, .with_shared = true };
    state *s = NULL;
    memfs_code rc;

    rc = list_left_out(manifest, ids, err);
    if (rc == MEMFS_OK)
        rc = state_open_sqlite(staged, &s, err);
    if (rc < 0)
        return rc;
    id_list_sort(ids);
    rc = state_agents(s, &all, check_listed, &c, err);
    state_close(s);
    if (rc == MEMFS_OK && c.n != ids->n)
        rc = memfs_fail(err, MEMFS_ECORRUPT, "the manifest has %zu agents, the state has %zu",
                        ids->n, c.n);
    return rc;
}

static memfs_code restore_settings(const char *from, const char *staged, const json_t *manifest,
                                   memfs_error *err)
{
    const json_t *names = json_object_get(manifest, "settings"); /* older backups have none */
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < json_array_size(names); i++)
        for (size_t j = 0; rc == MEMFS_OK && j < ARRAY_LEN(SETTINGS); j++) {
            const char *name = json_string_value(json_array_get(names, i));
            _cleanup_(mem_freep) char *source = mem_printf("%s/%s", from, SETTINGS[j]);
            _cleanup_(mem_freep) char *to = mem_printf("%s/%s", staged, SETTINGS[j]);

            if (name != NULL && strcmp(name, SETTINGS[j]) == 0)
                rc = fs_copy_tree(source, to, err);
        }
    return rc;
}

static memfs_code fill_home(upkeep_round *r, const char *from, const char *staged,
                            const json_t *manifest, memfs_error *err)
{
    _cleanup_(mem_freep) char *db = mem_printf("%s/state.db", from);
    _cleanup_(mem_freep) char *to_db = mem_printf("%s/state.db", staged);
    _cleanup_(id_list_dispose) id_list ids = { NULL, 0, 0 };
    store *s = NULL;
    memfs_code rc;

    rc = fs_copy_tree(db, to_db, err);
    if (rc == MEMFS_OK)
        rc = restore_settings(from, staged, manifest, err);
    if (rc == MEMFS_OK)
        rc = store_open(staged, &s, err);
    if (rc < 0)
        return rc;
    rc = restore_agents(r, s, from, staged, json_object_get(manifest, "agents"), &ids, err);
    store_close(s);
    return rc < 0 ? rc : check_state(staged, manifest, &ids, err);
}

/* Absent, or a folder with nothing in it, which the rename at the end then replaces. */
static memfs_code check_target(const char *home_path, memfs_error *err)
{
    struct dirent *e;
    size_t n = 0;
    DIR *dir;

    if (!fs_exists(home_path))
        return MEMFS_OK;
    dir = opendir(home_path);
    while (dir != NULL && (e = readdir(dir)) != NULL)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (dir != NULL)
        closedir(dir);
    if (dir == NULL || n > 0)
        return memfs_fail(err, MEMFS_EEXISTS,
                          "the data folder is there and not empty: a restore makes a new one");
    return MEMFS_OK;
}

memfs_code upkeep_restore(const char *from, const char *home_path, const upkeep_watcher *w,
                          upkeep_result *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *staged = partial_path(home_path);
    _cleanup_(decref) json_t *manifest = NULL;
    upkeep_round r = { .w = w, .ret = ret };
    memfs_code rc;

    *ret = (upkeep_result){ 0 };
    rc = read_manifest(from, &manifest, err);
    if (rc == MEMFS_OK)
        rc = check_target(home_path, err);
    if (rc < 0)
        return rc;
    rc = begin_partial(staged, err);
    if (rc == MEMFS_OK)
        rc = fill_home(&r, from, staged, manifest, err);
    if (rc == MEMFS_OK)
        rc = finish_partial(staged, home_path, err);
    if (rc < 0)
        drop_partial(staged);
    return rc;
}
