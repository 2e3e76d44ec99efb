#include "store/fetched.h"

#include "base/escape.h"
#include "base/fs.h"
#include "base/mem.h"
#include "store/fetched_int.h"
#include "store/git_child.h"
#include "store/scratch.h"
#include "store/sidecar.h"
#include "store/vet.h"
#include "store/vet_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 *     tmp/fetched-<token>-<n>/           a bare repository of its own
 *         objects/info/alternates        the real one's objects, or the genesis'
 *         objects/pack/                  what the remote sent, each fetch one pack
 *         objects/xx/                    what was merged here
 *         refs/heads/main, refs/memfs/meta   ours: git tells the remote, so only news travels
 *         refs/memfs/incoming/<n>        where the remote's is
 *         accept/                        what goes into the real repository
 *
 * Taking in does not move what came as it is: it may hold anything beside what is reachable from
 * the tip that was judged, and protocol v2 would serve it by its id.  git pack-objects writes one
 * pack of what the tip reaches and the real repository lacks.  It fails on whatever is missing, so
 * what is taken in is complete, and it syncs what it writes, which the fetch did not.  Then as
 * incoming.c: pack first, index last, and the folder synced.
 *
 * Where the one pack that came is counted to be exactly that (fetched_exact.c), as when an empty
 * machine is rebuilt, it is synced and moved itself: two children fewer for each of a thousand
 * agents.  For the same reason the first fetch of what is not here sees no alternate: git would ask
 * for its refs, twice, by a child each.  All it has to offer are two objects, the genesis.
 *
 * The real repository may be folded, or come into being, while we fetch without its lock.  The
 * first is what readers.h is for: we are a reader of it as long as we live.  The second is found
 * out when the lock is held (catch_up).
 */

#define ACCEPT_TIMEOUT_MS 120000
#define INCOMING "refs/memfs/incoming/"

struct fetched {
    store *s;
    char *name;
    char *dir, *objects;
    bool sees_real; /* false: it was not there yet, and the genesis stands in for it */
    unsigned n_fetches;
    uint64_t reader;
    repo *view;
    memfs_oid along; /* zero: none */
    bool along_is_fit; /* for the tip that was judged last */
};

/* ---- life cycle ---- */

/* Where the objects are that need not be fetched.  Caller frees. */
static char *base_objects(const fetched *f)
{
    _cleanup_(mem_freep) char *base =
        f->sees_real ? store_path(f->s, f->name) : mem_strdup(store_genesis_path(f->s));

    return mem_printf("%s/objects", base);
}

static memfs_code look_into_base(const fetched *f, memfs_error *err)
{
    _cleanup_(mem_freep) char *base = base_objects(f);

    return scratch_look_into(f->dir, base, err);
}

/* Ours, so that git tells the remote what it need not send. */
static memfs_code name_ours(const fetched *f, memfs_error *err)
{
    static const char *const refs[] = { STORE_MAIN, STORE_META };
    _cleanup_(mem_freep) char *path = store_path(f->s, f->name);
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < ARRAY_LEN(refs); i++) {
        memfs_oid at;

        rc = refs_read(path, refs[i], &at, err);
        if (rc == MEMFS_OK)
            rc = scratch_set_ref(f->dir, refs[i], &at, err);
        else if (rc == MEMFS_ENOTFOUND)
            rc = MEMFS_OK;
    }
    return rc;
}

memfs_code fetched_begin(store *s, const char *name, fetched **ret, memfs_error *err)
{
    _cleanup_(fetched_freep) fetched *f = NULL;
    _cleanup_(mem_freep) char *path = NULL;
    memfs_code rc;

    if (!store_name_is_sane(name))
        return memfs_fail(err, MEMFS_EINVALID, "that is no name of a repository");
    f = mem_alloc(sizeof(*f));
    *f = (fetched){ .s = s, .name = mem_strdup(name), .dir = store_temp_path(s, "fetched") };
    f->objects = mem_printf("%s/objects", f->dir);
    f->sees_real = store_has(s, name);
    path = store_path(s, name);
    f->reader = readers_begin(s->readers, path);
    rc = scratch_make(f->dir, err);
    if (rc == MEMFS_OK && f->sees_real)
        rc = look_into_base(f, err);
    if (rc == MEMFS_OK && f->sees_real)
        rc = name_ours(f, err);
    if (rc == MEMFS_OK)
        *ret = TAKE_PTR(f);
    return rc;
}

void fetched_free(fetched *f)
{
    memfs_error ignored;

    if (f == NULL)
        return;
    repo_close(f->view);
    readers_end(f->s->readers, f->reader);
    /* What cannot be removed now is swept later: it is no part of any repository. */
    if (fs_remove_tree(f->dir, &ignored) < 0)
        ignored.code = MEMFS_OK;
    free(f->name);
    free(f->dir);
    free(f->objects);
    free(f);
}

void fetched_freep(fetched **f)
{
    fetched_free(*f);
    *f = NULL;
}

const char *fetched_dir(const fetched *f)
{
    return f->dir;
}

/* ---- fetching ---- */

memfs_code fetched_fetch(fetched *f, const transport_target *t, const char *ref,
                         uint64_t max_bytes, int64_t deadline_ms, memfs_oid *ret_tip,
                         transport_report *report, memfs_error *err)
{
    return fetched_fetch_with(f, t, ref, NULL, max_bytes, deadline_ms, ret_tip, NULL, report, err);
}

memfs_code fetched_fetch_with(fetched *f, const transport_target *t, const char *ref,
                              const char *with_ref, uint64_t max_bytes, int64_t deadline_ms,
                              memfs_oid *ret_tip, memfs_oid *ret_with, transport_report *report,
                              memfs_error *err)
{
    _cleanup_(mem_freep) char *incoming = mem_printf(INCOMING "%u", f->n_fetches++);
    _cleanup_(mem_freep) char *with = mem_printf(INCOMING "%u", f->n_fetches++);
    transport_want want = { .ref = ref, .incoming_ref = incoming, .with_ref = with_ref,
                            .with_incoming_ref = with, .max_bytes = max_bytes,
                            .is_throw_away = true };
    transport_target target = *t;
    memfs_code rc;

    target.is_server = true;
    target.ask_git_helpers = false;
    rc = transport_fetch_ref(f->dir, &target, &want, deadline_ms, report, err);
    if (rc == MEMFS_OK)
        rc = refs_read(f->dir, incoming, ret_tip, err);
    if (rc == MEMFS_OK && with_ref != NULL)
        rc = refs_read(f->dir, with, ret_with, err);
    if (rc == MEMFS_OK && !f->sees_real)
        rc = look_into_base(f, err); /* for what is merged here with the genesis */
    if (rc == MEMFS_OK && f->view != NULL && git_odb_refresh(f->view->odb) < 0)
        rc = store_fail_git(err, -1, "could not open what the remote sent");
    return rc;
}

/* ---- looking inside ---- */

static memfs_code open_view(fetched *f, memfs_error *err)
{
    _cleanup_(mem_freep) char *base = base_objects(f);
    git_odb *odb = NULL;
    memfs_code rc;

    if (git_odb_new(&odb) < 0)
        return store_fail_git(err, -1, "could not open what the remote sent");
    rc = repo_add_objects(odb, f->objects, true, err);
    if (rc == MEMFS_OK)
        rc = repo_add_objects(odb, base, false, err);
    if (rc < 0) {
        git_odb_free(odb);
        return rc;
    }
    return repo_of_odb(f->s, NULL, odb, 0, &f->view, err);
}

/* The repository has come into being since we began: it has the genesis, too. */
static memfs_code catch_up(fetched *f, memfs_error *err)
{
    _cleanup_(mem_freep) char *base = NULL;
    memfs_code rc = MEMFS_OK;

    if (!f->sees_real && store_has(f->s, f->name)) {
        f->sees_real = true;
        rc = look_into_base(f, err);
        base = base_objects(f);
        if (rc == MEMFS_OK && f->view != NULL)
            rc = repo_add_objects(f->view->odb, base, false, err);
    }
    if (rc == MEMFS_OK && f->view != NULL && git_odb_refresh(f->view->odb) < 0)
        rc = store_fail_git(err, -1, "could not open what the remote sent");
    return rc;
}

repo *fetched_repo(fetched *f)
{
    memfs_error ignored;

    if (f->view == NULL && open_view(f, &ignored) < 0)
        return NULL;
    return f->view;
}

bool fetched_is_commit(fetched *f, const memfs_oid *tip)
{
    repo *r = fetched_repo(f);
    git_object_t type = GIT_OBJECT_INVALID;
    size_t size;
    git_oid oid;

    repo_git_oid(tip, &oid);
    return r != NULL && git_odb_read_header(&size, &type, r->odb, &oid) == 0 &&
           type == GIT_OBJECT_COMMIT;
}

/* ---- judging ---- */

static void closedirp(DIR **dir)
{
    if (*dir != NULL)
        closedir(*dir);
    *dir = NULL;
}

/* Everything that came, reachable or not: it may be met by a merge. */
static memfs_code vet_packs(fetched *f, const incoming_vetting *v, memfs_error *err)
{
    _cleanup_(mem_freep) char *folder = mem_printf("%s/pack", f->objects);
    _cleanup_(closedirp) DIR *dir = opendir(folder);
    memfs_code rc = MEMFS_OK;
    struct dirent *e;

    if (dir == NULL)
        return memfs_fail_errno(err, "could not list what the remote sent");
    while (rc == MEMFS_OK && (e = readdir(dir)) != NULL) {
        _cleanup_(mem_freep) char *path = mem_printf("%s/%s", folder, e->d_name);

        if (str_ends_with(str_of(e->d_name), MEMFS_STR(".idx")))
            rc = vet_pack(f->view, path, v, err);
    }
    return rc;
}

static bool is_here(repo *r, const memfs_oid *id)
{
    git_oid oid;

    repo_git_oid(id, &oid);
    return !oid_is_zero(id) && git_odb_exists(r->odb, &oid) == 1;
}

/* What comes along is no news of main's: it is judged whole, and alone. */
static bool is_along_fit(fetched *f, const fetched_vetting *v)
{
    incoming_vetting all = { &f->along, &f->along, v->policy, v->banned, v->n_banned };
    memfs_error ignored;

    return !oid_is_zero(&f->along) && vet_history(f->view, &all, NULL, 0, &ignored) == MEMFS_OK &&
           vet_tip_with(f->view, &all, NULL, 0, &ignored) == MEMFS_OK;
}

memfs_code fetched_vet(fetched *f, const fetched_vetting *v, memfs_error *err)
{
    incoming_vetting all = { v->tip, v->tip, v->policy, v->banned, v->n_banned };
    memfs_oid known[VET_TIP_MAX_KNOWN];
    memfs_code rc = MEMFS_OK;
    size_t n = 0;

    f->along_is_fit = false;
    if (f->view == NULL)
        rc = open_view(f, err);
    if (rc == MEMFS_OK)
        rc = catch_up(f, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < v->n_known && n < VET_TIP_MAX_KNOWN; i++)
        if (is_here(f->view, &v->known[i]))
            known[n++] = v->known[i];
    rc = vet_packs(f, &all, err);
    if (rc == MEMFS_OK)
        rc = vet_history(f->view, &all, known, n, err);
    if (rc == MEMFS_OK)
        rc = vet_tip_with(f->view, &all, known, n, err);
    f->along_is_fit = rc == MEMFS_OK && is_along_fit(f, v);
    return rc;
}

void fetched_bring_along(fetched *f, const memfs_oid *tip)
{
    f->along = *tip;
    f->along_is_fit = false;
}

/* ---- taking in ---- */

/* What is to be the real repository's. */
typedef struct wanted {
    memfs_oid tips[2];
    size_t n;
} wanted;

static wanted wanted_of(const fetched *f, const memfs_oid *tip)
{
    wanted w = { { *tip, f->along }, 1 };

    w.n += f->along_is_fit && !oid_equal(tip, &f->along);
    return w;
}

/* What the real repository has and reaches: the rest is asked of each object (--local). */
static void add_wanted(const fetched *f, const wanted *w, memfs_buf *out)
{
    static const char *const refs[] = { STORE_MAIN, STORE_META };
    _cleanup_(mem_freep) char *path = store_path(f->s, f->name);
    char hex[MEMFS_OID_HEX + 1];
    memfs_error ignored;
    memfs_oid at;

    for (size_t i = 0; i < w->n; i++) {
        oid_hex(&w->tips[i], hex);
        buf_printf(out, "%s\n", hex);
    }
    for (size_t i = 0; i < ARRAY_LEN(refs); i++)
        if (refs_read(path, refs[i], &at, &ignored) == MEMFS_OK) {
            oid_hex(&at, hex);
            buf_printf(out, "^%s\n", hex);
        }
}

static memfs_code fail_packing(const fetched *f, memfs_str said, memfs_error *err)
{
    memfs_str line = process_last_line(said);
    char shown[240];

    if (git_env_is_disk_full(said))
        return memfs_fail(err, MEMFS_ENOSPACE, "the disk of the server is full");
    if (err->code != MEMFS_EINTERNAL || line.len == 0 ||
        memmem(line.ptr, line.len, f->s->home, strlen(f->s->home)) != NULL)
        return memfs_context(err, "could not take in what the remote sent");
    return memfs_fail(err, MEMFS_EINTERNAL, "could not take in what the remote sent: %s",
                      escape_text(line, shown, sizeof(shown)));
}

/* ret_pack becomes "" when there is nothing that the real repository lacks. */
static memfs_code write_pack(const fetched *f, const char *folder, const wanted *w,
                             char ret_pack[MEMFS_OID_HEX + 1], memfs_error *err)
{
    _cleanup_(mem_freep) char *base = mem_printf("%s/pack", folder);
    const char *args[] = { "pack-objects", "-q", "--revs", "--local", "--non-empty",
                           "--delta-base-offset", base, NULL };
    _cleanup_(buf_dispose) memfs_buf input = MEMFS_BUF_INIT(1024);
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1024);
    _cleanup_(buf_dispose) memfs_buf tail = MEMFS_BUF_INIT(16 * 1024);
    git_child_options o = { .git_dir = f->dir, .args = args };
    memfs_code rc;

    if (mkdir(folder, 0700) < 0 && errno != EEXIST)
        return memfs_fail_errno(err, "could not make room for what a remote sends");
    add_wanted(f, w, &input);
    o.input = buf_str(&input);
    rc = git_child_run(f->s, GIT_JOB_REPACK, &o, &out, &tail, ACCEPT_TIMEOUT_MS, err);
    if (rc < 0)
        return fail_packing(f, buf_str(&tail), err);
    return git_child_pack_name(buf_str(&out), ret_pack, err);
}

static memfs_code move_in(const char *from_folder, const char *to_folder, const char *pack,
                          const char *suffix, bool is_needed, memfs_error *err)
{
    _cleanup_(mem_freep) char *from = mem_printf("%s/pack-%s.%s", from_folder, pack, suffix);
    _cleanup_(mem_freep) char *to = mem_printf("%s/pack-%s.%s", to_folder, pack, suffix);

    if (rename(from, to) == 0 || (errno == ENOENT && !is_needed))
        return MEMFS_OK;
    return memfs_fail_errno(err, "could not put the pack in place");
}

/* Synced also when there is no pack: it may have been renamed in by one that died just then. */
static memfs_code publish(const char *from, const char *to, const char *pack, memfs_error *err)
{
    bool has_pack = pack[0] != '\0';
    memfs_code rc = fs_mkdirs(to, err);

    if (rc == MEMFS_OK && has_pack)
        rc = move_in(from, to, pack, "pack", true, err);
    if (rc == MEMFS_OK && has_pack)
        rc = move_in(from, to, pack, "rev", false, err);
    if (rc == MEMFS_OK && has_pack)
        rc = move_in(from, to, pack, "idx", true, err);
    if (rc == MEMFS_OK && fs_sync_dir(to, err) < 0)
        rc = err->code == MEMFS_ENOSPACE ? err->code : (err->code = MEMFS_ECORRUPT);
    return rc;
}

/* ---- taking in what came as it is ---- */

/* True: there is one pack, and this is its id; "" when there is none at all. */
static bool find_pack(const char *folder, char ret_pack[MEMFS_OID_HEX + 1])
{
    _cleanup_(closedirp) DIR *dir = opendir(folder);
    size_t n_others = 0;
    struct dirent *e;

    ret_pack[0] = '\0';
    while (dir != NULL && (e = readdir(dir)) != NULL) {
        memfs_str name = str_of(e->d_name);
        memfs_oid id;

        if (name.ptr[0] == '.' || str_ends_with(name, MEMFS_STR(".rev")) ||
            str_ends_with(name, MEMFS_STR(".pack")))
            continue;
        if (ret_pack[0] != '\0' || name.len != 5 + MEMFS_OID_HEX + 4 ||
            !str_starts_with(name, MEMFS_STR("pack-")) ||
            !str_ends_with(name, MEMFS_STR(".idx")) ||
            !oid_parse(str_make(name.ptr + 5, MEMFS_OID_HEX), &id))
            n_others++;
        else
            oid_hex(&id, ret_pack);
    }
    return dir != NULL && n_others == 0;
}

/* The packs that came are all that is wanted; *ret_pack as find_pack has it. */
static bool is_exact(const fetched *f, const char *folder, const wanted *w,
                     char ret_pack[MEMFS_OID_HEX + 1])
{
    _cleanup_(repo_closep) repo *real = NULL;
    _cleanup_(mem_freep) char *index = NULL;
    memfs_error ignored;

    if (f->view == NULL || !find_pack(folder, ret_pack) ||
        repo_open(f->s, f->name, &real, &ignored) < 0)
        return false;
    index = mem_printf("%s/pack-%s.idx", folder, ret_pack);
    return fetched_is_exact(f->view, ret_pack[0] != '\0' ? index : NULL, real, w->tips, w->n);
}

static memfs_code sync_file(const char *folder, const char *pack, const char *suffix,
                            memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/pack-%s.%s", folder, pack, suffix);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int rc = fd >= 0 ? fsync(fd) : -1;

    if (rc < 0)
        memfs_fail_errno(err, "could not sync what the remote sent");
    if (fd >= 0)
        close(fd);
    return rc < 0 ? err->code : MEMFS_OK;
}

/* Before it has a name where it counts: a failure here has changed nothing. */
static memfs_code sync_pack(const char *folder, const char *pack, memfs_error *err)
{
    memfs_code rc = pack[0] != '\0' ? sync_file(folder, pack, "pack", err) : MEMFS_OK;

    return rc == MEMFS_OK && pack[0] != '\0' ? sync_file(folder, pack, "idx", err) : rc;
}

memfs_code fetched_accept(fetched *f, const memfs_oid *tip, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = store_path(f->s, f->name);
    _cleanup_(mem_freep) char *target = mem_printf("%s/objects/pack", path);
    _cleanup_(mem_freep) char *came = mem_printf("%s/pack", f->objects);
    _cleanup_(mem_freep) char *folder = mem_printf("%s/accept", f->dir);
    wanted w = wanted_of(f, tip);
    char pack[MEMFS_OID_HEX + 1];
    memfs_code rc;

    if (!store_has(f->s, f->name))
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no repository to take it in");
    rc = catch_up(f, err);
    if (rc < 0)
        return rc;
    if (is_exact(f, came, &w, pack)) {
        rc = sync_pack(came, pack, err);
        return rc == MEMFS_OK ? publish(came, target, pack, err) : rc;
    }
    rc = write_pack(f, folder, &w, pack, err);
    return rc == MEMFS_OK ? publish(folder, target, pack, err) : rc;
}
