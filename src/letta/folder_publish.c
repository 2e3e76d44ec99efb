#include "letta/folder_int.h"

#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "store/outgoing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/*
 *     .../{agent}/.memfs-<random>/            what is being made
 *         pack/pack-<id>.pack, .idx           objects that the folder lacks
 *         main, before                        the new ref, and the one before (folder_swap.c)
 *         repo.git/                           a whole repository, when there is none yet
 *     .../{agent}/repo.git/
 *
 * What a reader of the server's can meet: it lists all files, then reads them.  One that listed
 * before the pack came and read main after it moved would have a ref without its objects, so there
 * is a moment between them, longer than a listing and a read of some files take.  (A read that is
 * slower finds a commit missing and is repeated, by the server for its own sync; nothing is lost.)
 */

#define STAGE_RANDOM 6
#define MOMENT_NS 25000000L

typedef struct publishing {
    letta_folder *f;
    store *s;
    const char *name, *agent_id;
    const memfs_oid *expected, *tip;
    letta_owner owner;
    char *repo, *agent, *stage; /* paths */
    letta_held in_agent, in_stage;
    bool may_hold, is_moved; /* letta_swap_main */
} publishing;

static void publishing_dispose(publishing *p)
{
    letta_held_dispose(&p->in_agent);
    letta_held_dispose(&p->in_stage);
    free(p->repo);
    free(p->agent);
    free(p->stage);
}

static letta_places places_of(const publishing *p)
{
    return (letta_places){ p->in_agent.path, p->in_stage.path, p->repo, &p->owner };
}

static memfs_code fail_written(memfs_error *err)
{
    return memfs_fail(err, MEMFS_ECONFLICT, "the Letta server wrote meanwhile");
}

/* ---- small files ---- */

static memfs_code write_file(const char *folder, const char *name, const char *text,
                             memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", folder, name);

    return fs_write_atomic(path, str_of(text), 0644, err);
}

static memfs_code write_ref(const char *folder, const memfs_oid *tip, memfs_error *err)
{
    char line[MEMFS_OID_HEX + 2];

    letta_ref_line(tip, line);
    return write_file(folder, "main", line, err);
}

/* ---- a new repository ---- */

static memfs_code settle_folder(const publishing *p, char *path, memfs_error *err)
{
    memfs_code rc = letta_own(&p->owner, path, err);
    char *slash = strrchr(path, '/');

    *slash = '\0';
    if (rc == MEMFS_OK)
        rc = fs_sync_dir(path, err);
    *slash = '/';
    return rc;
}

/* The folders above repo.git, which the server makes when it makes one; theirs as all is. */
static memfs_code make_above(const publishing *p, memfs_error *err)
{
    const char *root = letta_folder_root(p->f);
    _cleanup_(mem_freep) char *path = mem_strdup(p->agent);
    memfs_code rc = MEMFS_OK;
    char *slash = path + strlen(root);

    while (rc == MEMFS_OK && slash != NULL) {
        slash = strchr(slash + 1, '/');
        if (slash != NULL)
            *slash = '\0';
        if (mkdir(path, 0700) == 0)
            rc = settle_folder(p, path, err);
        else if (errno != EEXIST)
            rc = memfs_fail_errno(err, "could not make '%s'", path);
        if (slash != NULL)
            *slash = '/';
    }
    return rc;
}

static memfs_code make_folders(const char *repo, memfs_error *err)
{
    static const char *const below[] = { "",      "/objects",    "/objects/info",
                                         "/refs", "/refs/heads", "/refs/tags" };

    for (size_t i = 0; i < ARRAY_LEN(below); i++) {
        _cleanup_(mem_freep) char *path = mem_printf("%s%s", repo, below[i]);

        if (mkdir(path, 0755) < 0)
            return memfs_fail_errno(err, "could not make 'repo.git%s'", below[i]);
    }
    return MEMFS_OK;
}

/* bare is false although there is no work tree: the server makes one around its copy. */
static memfs_code fill_repository(const publishing *p, const char *repo,
                                  char pack[MEMFS_OID_HEX + 1], memfs_error *err)
{
    _cleanup_(mem_freep) char *heads = mem_printf("%s/refs/heads", repo);
    _cleanup_(mem_freep) char *packs = mem_printf("%s/objects/pack", repo);
    static const memfs_oid none;
    memfs_code rc = make_folders(repo, err);

    if (rc == MEMFS_OK)
        rc = outgoing_pack(p->s, p->name, p->tip, &none, packs, pack, err);
    if (rc == MEMFS_OK)
        rc = write_file(repo, "HEAD", "ref: " STORE_MAIN "\n", err);
    if (rc == MEMFS_OK)
        rc = write_file(repo, "config",
                        "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n"
                        "\tbare = false\n\tlogallrefupdates = true\n",
                        err);
    if (rc == MEMFS_OK)
        rc = write_ref(heads, p->tip, err);
    if (rc == MEMFS_OK)
        rc = letta_own_made(&p->owner, repo, err);
    return rc == MEMFS_OK ? fs_sync_tree(repo, err) : rc;
}

static memfs_code make_repository(publishing *p, memfs_error *err)
{
    _cleanup_(mem_freep) char *made = mem_printf("%s/repo.git", p->in_stage.path);
    char pack[MEMFS_OID_HEX + 1];
    memfs_code rc = fill_repository(p, made, pack, err);

    if (rc < 0)
        return rc;
    rc = letta_note_pack(p->in_agent.path, pack, err);
    if (rc < 0)
        return rc;
    if (renameat(p->in_stage.fd, "repo.git", p->in_agent.fd, "repo.git") < 0)
        return errno == ENOTEMPTY || errno == EEXIST
                   ? fail_written(err)
                   : memfs_fail_errno(err, "could not put '%s' in place", p->repo);
    p->is_moved = true;
    return fs_sync_dir(p->in_agent.path, err);
}

/* ---- one that is there ---- */

/* objects/pack, which a server that never packed has not. */
static memfs_code open_packs(const letta_places *at, int *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *objects = mem_printf("%s/objects", at->repo);
    _cleanup_(mem_freep) char *packs = mem_printf("%s/pack", objects);
    _cleanup_(letta_close) int fd = letta_open(at->owner->folder, objects, O_RDONLY | O_DIRECTORY);
    memfs_code rc = MEMFS_OK;

    if (fd >= 0 && mkdirat(fd, "pack", 0755) == 0)
        rc = letta_own(at->owner, packs, err);
    if (rc < 0)
        return rc;
    *ret = letta_open(at->owner->folder, packs, O_RDONLY | O_DIRECTORY);
    return *ret >= 0 ? MEMFS_OK : memfs_fail_errno(err, "could not open '%s'", packs);
}

memfs_code letta_move_pack(const letta_places *at, const char *from, const char *pack,
                           memfs_error *err)
{
    static const char *const suffixes[] = { "pack", "idx" };
    _cleanup_(letta_close) int fd = -1;
    memfs_code rc = letta_note_pack(at->agent, pack, err);

    if (rc == MEMFS_OK)
        rc = letta_own_made(at->owner, from, err);
    if (rc == MEMFS_OK)
        rc = open_packs(at, &fd, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
        _cleanup_(mem_freep) char *name = mem_printf("pack-%s.%s", pack, suffixes[i]);
        _cleanup_(mem_freep) char *old = mem_printf("%s/%s", from, name);

        if (renameat(AT_FDCWD, old, fd, name) < 0)
            return memfs_fail_errno(err, "could not put a pack into '%s'", at->repo);
    }
    return fsync(fd) == 0 ? MEMFS_OK
                          : memfs_fail_errno(err, "could not write '%s' to disk", at->repo);
}

static memfs_code bring_objects(const publishing *p, memfs_error *err)
{
    _cleanup_(mem_freep) char *packs = mem_printf("%s/pack", p->in_stage.path);
    const letta_places at = places_of(p);
    const struct timespec moment = { 0, MOMENT_NS };
    char pack[MEMFS_OID_HEX + 1];
    memfs_code rc = outgoing_pack(p->s, p->name, p->tip, p->expected, packs, pack, err);

    if (rc < 0 || pack[0] == '\0')
        return rc;
    rc = letta_move_pack(&at, packs, pack, err);
    if (rc == MEMFS_OK)
        nanosleep(&moment, NULL);
    return rc;
}

static memfs_code put_head(const publishing *p, memfs_error *err)
{
    _cleanup_(letta_close) int repo = letta_open(p->f, p->repo, O_RDONLY | O_DIRECTORY);

    if (repo < 0 || renameat(p->in_stage.fd, "HEAD", repo, "HEAD") < 0 || fsync(repo) < 0)
        return memfs_fail_errno(err, "could not put HEAD into '%s'", p->repo);
    return MEMFS_OK;
}

/* HEAD names main; whoever made it name another branch has no reader any more. */
static memfs_code mend_head(const publishing *p, memfs_error *err)
{
    _cleanup_(mem_freep) char *head = mem_printf("%s/HEAD", p->repo);
    _cleanup_(mem_freep) char *made = mem_printf("%s/HEAD", p->in_stage.path);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
    memfs_code rc = fs_read(head, &text, err);

    if (rc == MEMFS_OK && str_equal(buf_str(&text), MEMFS_STR("ref: " STORE_MAIN "\n")))
        return rc;
    rc = write_file(p->in_stage.path, "HEAD", "ref: " STORE_MAIN "\n", err);
    if (rc == MEMFS_OK)
        rc = letta_own_made(&p->owner, made, err);
    return rc == MEMFS_OK ? put_head(p, err) : rc;
}

/* What is renamed into, listed or removed from is this agent's own, whoever writes the volume. */
static memfs_code check_below(const publishing *p, const char *below, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", p->repo, below);

    if (!fs_exists(path) || letta_is_folder(p->f, path))
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_ECORRUPT, "'%s' is a link or no folder: put a folder in its place",
                      path);
}

static memfs_code advance(publishing *p, memfs_error *err)
{
    const letta_swap swap = { p->repo, p->in_stage.path, p->expected, p->tip, &p->owner };
    const letta_places at = places_of(p);
    memfs_code rc = check_below(p, "objects/pack", err);

    if (rc == MEMFS_OK)
        rc = check_below(p, "refs/heads", err);
    if (rc == MEMFS_OK)
        rc = mend_head(p, err);
    if (rc == MEMFS_OK)
        rc = bring_objects(p, err);
    if (rc == MEMFS_OK)
        rc = letta_swap_main(&swap, &p->may_hold, &p->is_moved, err);
    if (rc == MEMFS_OK)
        letta_folder_tidy(p->s, p->name, p->tip, &at);
    return rc;
}

/* ---- both ---- */

/*
 * Did we make the folder that we have just made, or did somebody put his own in its place?  Where a
 * filesystem has owners of its own mind, they are those of what else we make.
 */
static bool is_ours(int fd)
{
    _cleanup_(letta_close) int probe = -1;
    struct stat folder, file;

    if (fstat(fd, &folder) < 0)
        return false;
    if (folder.st_uid == geteuid())
        return true;
    probe = openat(fd, "owner", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    return probe >= 0 && fstat(probe, &file) == 0 && file.st_uid == folder.st_uid &&
           unlinkat(fd, "owner", 0) == 0;
}

static memfs_code make_stage(publishing *p, memfs_error *err)
{
    uint8_t bytes[STAGE_RANDOM];
    char hex[2 * STAGE_RANDOM + 1];
    const char *name;
    memfs_code rc;

    rc = letta_hold(letta_open(p->f, p->agent, O_RDONLY | O_DIRECTORY), &p->in_agent, err);
    if (rc < 0)
        return rc;
    hash_random(bytes, sizeof(bytes));
    hash_hex(bytes, sizeof(bytes), hex);
    p->stage = mem_printf("%s/.memfs-%s", p->agent, hex);
    name = p->stage + strlen(p->agent) + 1;
    if (mkdirat(p->in_agent.fd, name, 0700) < 0)
        return memfs_fail_errno(err, "could not write to '%s'", p->agent);
    rc = letta_hold(openat(p->in_agent.fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
                    &p->in_stage, err);
    if (rc == MEMFS_OK && !is_ours(p->in_stage.fd))
        rc = memfs_fail(err, MEMFS_ECORRUPT, "somebody put something else in the place of '%s'",
                        p->stage);
    return rc;
}

memfs_code letta_folder_publish(letta_folder *f, store *s, const char *name, const char *agent_id,
                                const memfs_oid *expected, const memfs_oid *tip, bool *ret_is_moved,
                                memfs_error *err)
{
    _cleanup_(publishing_dispose) publishing p = { .f = f,
                                                   .s = s,
                                                   .name = name,
                                                   .agent_id = agent_id,
                                                   .expected = expected,
                                                   .tip = tip,
                                                   .in_agent = LETTA_HELD_INIT,
                                                   .in_stage = LETTA_HELD_INIT };
    memfs_error ignored;
    letta_place place;
    memfs_code rc = letta_owner_of(f, &p.owner, err);

    *ret_is_moved = false;
    if (rc < 0)
        return memfs_fail(err, MEMFS_EUNAVAIL, "the Letta server's folder '%s' is not there",
                          letta_folder_root(f));
    p.repo = letta_folder_path(f, agent_id, &place);
    p.agent = mem_strndup(p.repo, (size_t)(strrchr(p.repo, '/') - p.repo));
    if (!oid_is_zero(expected) && place != LETTA_THERE)
        return fail_written(err); /* it is gone: nothing is made up in its place */
    if (oid_is_zero(expected))
        rc = make_above(&p, err);
    if (rc == MEMFS_OK)
        rc = make_stage(&p, err);
    if (rc == MEMFS_OK)
        rc = oid_is_zero(expected) ? make_repository(&p, err) : advance(&p, err);
    *ret_is_moved = p.is_moved;
    if (p.stage != NULL && !p.may_hold && fs_remove_tree(p.stage, &ignored) < 0)
        return rc; /* nobody reads it; the next look removes it */
    return rc;
}
