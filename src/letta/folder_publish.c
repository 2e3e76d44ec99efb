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
    bool may_hold, is_moved;    /* letta_swap_main */
} publishing;

static void publishing_dispose(publishing *p)
{
    free(p->repo);
    free(p->agent);
    free(p->stage);
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
            return memfs_fail_errno(err, "could not make '%s'", path);
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
        rc = letta_own(&p->owner, repo, err);
    return rc == MEMFS_OK ? fs_sync_tree(repo, err) : rc;
}

static memfs_code make_repository(publishing *p, memfs_error *err)
{
    _cleanup_(mem_freep) char *made = mem_printf("%s/repo.git", p->stage);
    char pack[MEMFS_OID_HEX + 1];
    memfs_code rc = fill_repository(p, made, pack, err);

    if (rc < 0)
        return rc;
    rc = letta_note_pack(p->repo, pack, err);
    if (rc < 0)
        return rc;
    if (rename(made, p->repo) < 0)
        return errno == ENOTEMPTY || errno == EEXIST
                   ? fail_written(err)
                   : memfs_fail_errno(err, "could not put '%s' in place", p->repo);
    p->is_moved = true;
    return fs_sync_dir(p->agent, err);
}

/* ---- one that is there ---- */

memfs_code letta_move_pack(const char *from, const char *repo, const char *pack,
                           const letta_owner *o, memfs_error *err)
{
    static const char *const suffixes[] = { "pack", "idx" };
    _cleanup_(mem_freep) char *to = mem_printf("%s/objects/pack", repo);
    _cleanup_(letta_close) int fd = -1;
    memfs_code rc = letta_note_pack(repo, pack, err);

    if (rc == MEMFS_OK)
        rc = letta_own(o, from, err);
    if (rc == MEMFS_OK && mkdir(to, 0755) == 0)
        rc = letta_own(o, to, err);
    if (rc < 0)
        return rc;
    fd = letta_open(o->folder, to, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return memfs_fail_errno(err, "could not open '%s'", to);
    for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
        _cleanup_(mem_freep) char *name = mem_printf("pack-%s.%s", pack, suffixes[i]);
        _cleanup_(mem_freep) char *old = mem_printf("%s/%s", from, name);

        if (renameat(AT_FDCWD, old, fd, name) < 0)
            return memfs_fail_errno(err, "could not put a pack into '%s'", to);
    }
    return fsync(fd) == 0 ? MEMFS_OK : memfs_fail_errno(err, "could not write '%s' to disk", to);
}

static memfs_code bring_objects(const publishing *p, memfs_error *err)
{
    _cleanup_(mem_freep) char *packs = mem_printf("%s/pack", p->stage);
    const struct timespec moment = { 0, MOMENT_NS };
    char pack[MEMFS_OID_HEX + 1];
    memfs_code rc = outgoing_pack(p->s, p->name, p->tip, p->expected, packs, pack, err);

    if (rc < 0 || pack[0] == '\0')
        return rc;
    rc = letta_move_pack(packs, p->repo, pack, &p->owner, err);
    if (rc == MEMFS_OK)
        nanosleep(&moment, NULL);
    return rc;
}

/* HEAD names main; whoever made it name another branch has no reader any more. */
static memfs_code mend_head(const publishing *p, memfs_error *err)
{
    _cleanup_(mem_freep) char *head = mem_printf("%s/HEAD", p->repo);
    _cleanup_(mem_freep) char *made = mem_printf("%s/HEAD", p->stage);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
    memfs_code rc = fs_read(head, &text, err);

    if (rc == MEMFS_OK && str_equal(buf_str(&text), MEMFS_STR("ref: " STORE_MAIN "\n")))
        return rc;
    rc = write_file(p->stage, "HEAD", "ref: " STORE_MAIN "\n", err);
    if (rc == MEMFS_OK)
        rc = letta_own(&p->owner, made, err);
    return rc == MEMFS_OK ? fs_rename(made, head, err) : rc;
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
    const letta_swap swap = { p->repo, p->stage, p->expected, p->tip, &p->owner };
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
        letta_folder_tidy(p->s, p->name, p->tip, p->repo, p->stage, &p->owner);
    return rc;
}

/* ---- both ---- */

static memfs_code make_stage(publishing *p, memfs_error *err)
{
    uint8_t bytes[STAGE_RANDOM];
    char hex[2 * STAGE_RANDOM + 1];

    hash_random(bytes, sizeof(bytes));
    hash_hex(bytes, sizeof(bytes), hex);
    p->stage = mem_printf("%s/.memfs-%s", p->agent, hex);
    if (mkdir(p->stage, 0700) < 0)
        return memfs_fail_errno(err, "could not write to '%s'", p->agent);
    return MEMFS_OK;
}

memfs_code letta_folder_publish(letta_folder *f, store *s, const char *name, const char *agent_id,
                                const memfs_oid *expected, const memfs_oid *tip, bool *ret_is_moved,
                                memfs_error *err)
{
    _cleanup_(publishing_dispose) publishing p = {
        .f = f, .s = s, .name = name, .agent_id = agent_id, .expected = expected, .tip = tip
    };
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
