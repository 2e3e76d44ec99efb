#include "store/store_int.h"

#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "store/git_child.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/*
 * The store's folder:
 *
 *     repository/...                  repositories, named by the caller
 *     tmp/genesis.git                 the template: nothing but the genesis commit on main
 *     tmp/empty/                      HOME of every child
 *     tmp/ready/<i>/                  empty incoming folders, to be used again
 *     tmp/<kind>-<token>-<n>          work under way; another token than ours is left over
 *
 * A repository comes into being by one rename of a synced copy of the template, so it is there
 * whole or not at all, and it never lacks its first commit (contract: an empty repository on disk
 * makes stock servers fail).
 *
 * The template is made of raw bytes rather than by `git init`: the genesis must be the same commit
 * on every machine, whatever git, clock, user or configuration there is.
 */

const memfs_oid STORE_GENESIS = { { 0x56, 0x77, 0x62, 0x45, 0xff, 0x7b, 0x89, 0x66, 0x22, 0x90,
                                    0x4b, 0xfc, 0x4d, 0x1c, 0x35, 0x5a, 0x35, 0xe6, 0xcd, 0x81 } };

static const char GENESIS_COMMIT[] = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n"
                                     "author memfs <memfs@localhost> 0 +0000\n"
                                     "committer memfs <memfs@localhost> 0 +0000\n"
                                     "\n"
                                     "memfs: genesis\n";
#define GENESIS_HEX "56776245ff7b896622904bfc4d1c355a35e6cd81"

/* What a person who runs git here by hand should meet (F14); our own children bring their own. */
static const char REPOSITORY_CONFIG[] = "[core]\n"
                                        "\trepositoryformatversion = 0\n"
                                        "\tfilemode = true\n"
                                        "\tbare = true\n"
                                        "\tlogAllRefUpdates = always\n"
                                        "\thooksPath = /dev/null\n"
                                        "\tfsync = all\n"
                                        "\tfsyncMethod = fsync\n"
                                        "[gc]\n"
                                        "\tauto = 0\n"
                                        "\tpackRefs = false\n"
                                        "\treflogExpire = never\n"
                                        "\treflogExpireUnreachable = never\n"
                                        "[maintenance]\n"
                                        "\tauto = false\n"
                                        "[transfer]\n"
                                        "\tfsckObjects = true\n"
                                        "\thideRefs = refs/\n"
                                        "\thideRefs = !refs/heads/\n"
                                        "[receive]\n"
                                        "\tautogc = false\n"
                                        "\tdenyDeletes = true\n"
                                        "\tdenyNonFastForwards = true\n"
                                        "\tupdateServerInfo = false\n"
                                        "[uploadpack]\n"
                                        "\tallowAnySHA1InWant = false\n"
                                        "\tallowFilter = false\n";

/* names */

bool store_name_is_sane(const char *name)
{
    size_t len = strlen(name);

    if (len == 0 || len > 512 || name[0] == '/' || name[0] == '-' || name[len - 1] == '/')
        return false;
    return strstr(name, "..") == NULL && strstr(name, "//") == NULL;
}

char *store_path(const store *s, const char *name)
{
    return mem_printf("%s/%s", s->home, name);
}

const char *store_genesis_path(const store *s)
{
    return s->genesis;
}

char *store_temp_path(store *s, const char *kind)
{
    return mem_printf("%s/%s-%s-%u", s->tmp, kind, s->token, atomic_fetch_add(&s->counter, 1));
}

/* the genesis template */

memfs_code store_write_genesis(const char *objects, memfs_error *err)
{
    git_odb *odb = NULL;
    git_oid tree, commit;
    memfs_oid id;
    memfs_code rc;

    if (git_odb_new(&odb) < 0)
        return store_fail_git(err, -1, "could not create the genesis");
    rc = repo_add_objects(odb, objects, true, err);
    if (rc == MEMFS_OK &&
        (git_odb_write(&tree, odb, "", 0, GIT_OBJECT_TREE) < 0 ||
         git_odb_write(&commit, odb, GENESIS_COMMIT, sizeof(GENESIS_COMMIT) - 1,
                       GIT_OBJECT_COMMIT) < 0))
        rc = store_fail_git(err, -1, "could not write the genesis");
    git_odb_free(odb);
    if (rc < 0)
        return rc;
    repo_memfs_oid(&commit, &id);
    if (!oid_equal(&id, &STORE_GENESIS))
        return memfs_fail(err, MEMFS_EINTERNAL, "the genesis commit came out with another id");
    return MEMFS_OK;
}

typedef struct template_file {
    const char *path, *text;
} template_file;

static memfs_code write_template_files(const char *stage, memfs_error *err)
{
    static const template_file files[] = {
        { "HEAD", "ref: " STORE_MAIN "\n" },
        { "config", REPOSITORY_CONFIG },
        { STORE_MAIN, GENESIS_HEX "\n" },
        /* not second 0: git takes a reflog entry of that date for damaged and skips it */
        { "logs/" STORE_MAIN, "0000000000000000000000000000000000000000 " GENESIS_HEX
                              " memfs <memfs@localhost> 1 +0000\tgenesis\n" },
    };
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < ARRAY_LEN(files); i++) {
        _cleanup_(mem_freep) char *path = mem_printf("%s/%s", stage, files[i].path);

        rc = fs_write_atomic(path, str_of(files[i].text), 0600, err);
    }
    return rc;
}

static memfs_code build_template(const char *stage, memfs_error *err)
{
    static const char *const folders[] = { "objects/pack", "refs/heads", "logs/refs/heads" };
    _cleanup_(mem_freep) char *objects = mem_printf("%s/objects", stage);
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < ARRAY_LEN(folders); i++) {
        _cleanup_(mem_freep) char *path = mem_printf("%s/%s", stage, folders[i]);

        rc = fs_mkdirs(path, err);
    }
    if (rc == MEMFS_OK)
        rc = store_write_genesis(objects, err);
    if (rc == MEMFS_OK)
        rc = write_template_files(stage, err);
    return rc;
}

/* Is what an earlier start left there still good? */
static bool template_is_good(const store *s)
{
    _cleanup_(mem_freep) char *commit =
        mem_printf("%s/objects/%.2s/%s", s->genesis, GENESIS_HEX, &GENESIS_HEX[2]);
    _cleanup_(mem_freep) char *config = mem_printf("%s/config", s->genesis);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(64 * 1024);
    memfs_error ignored;
    memfs_oid tip;

    return refs_read(s->genesis, STORE_MAIN, &tip, &ignored) == MEMFS_OK &&
           oid_equal(&tip, &STORE_GENESIS) && fs_exists(commit) &&
           fs_read(config, &text, &ignored) == MEMFS_OK &&
           str_equal(buf_str(&text), MEMFS_STR(REPOSITORY_CONFIG));
}

static memfs_code make_template(store *s, memfs_error *err)
{
    _cleanup_(mem_freep) char *stage = NULL;
    memfs_code rc;

    if (template_is_good(s))
        return MEMFS_OK;
    stage = store_temp_path(s, "create");
    rc = fs_remove_tree(s->genesis, err);
    if (rc == MEMFS_OK)
        rc = build_template(stage, err);
    if (rc == MEMFS_OK)
        rc = fs_rename(stage, s->genesis, err);
    return rc;
}

/* life cycle */

static memfs_code set_libgit2_options(memfs_error *err)
{
    static const git_config_level_t levels[] = { GIT_CONFIG_LEVEL_PROGRAMDATA,
                                                 GIT_CONFIG_LEVEL_SYSTEM, GIT_CONFIG_LEVEL_XDG,
                                                 GIT_CONFIG_LEVEL_GLOBAL };
    int rc = 0;

    for (size_t i = 0; i < ARRAY_LEN(levels); i++)
        rc |= git_libgit2_opts(GIT_OPT_SET_SEARCH_PATH, levels[i], "");
    rc |= git_libgit2_opts(GIT_OPT_ENABLE_FSYNC_GITDIR, 1);
    rc |= git_libgit2_opts(GIT_OPT_ENABLE_STRICT_HASH_VERIFICATION, 1);
    rc |= git_libgit2_opts(GIT_OPT_ENABLE_STRICT_OBJECT_CREATION, 1);
    rc |= git_libgit2_opts(GIT_OPT_ENABLE_STRICT_SYMBOLIC_REF_CREATION, 1);
    rc |= git_libgit2_opts(GIT_OPT_SET_OWNER_VALIDATION, 0); /* we look at owner and mode */
    rc |= git_libgit2_opts(GIT_OPT_SET_MWINDOW_SIZE, (size_t)4 << 20);
    rc |= git_libgit2_opts(GIT_OPT_SET_MWINDOW_MAPPED_LIMIT, (size_t)256 << 20);
    rc |= git_libgit2_opts(GIT_OPT_SET_MWINDOW_FILE_LIMIT, (size_t)256);
    rc |= git_libgit2_opts(GIT_OPT_SET_CACHE_MAX_SIZE, (ssize_t)8 << 20);
    /* a folder of some thousand files is one tree object, and one push reads it several times */
    rc |= git_libgit2_opts(GIT_OPT_SET_CACHE_OBJECT_LIMIT, GIT_OBJECT_TREE, (size_t)512 << 10);
    return rc == 0 ? MEMFS_OK : store_fail_git(err, -1, "could not set up libgit2");
}

static pthread_once_t library_once = PTHREAD_ONCE_INIT;
static memfs_code library_code;
static memfs_error library_error;

static void library_start(void)
{
    if (git_libgit2_init() < 0)
        library_code = memfs_fail(&library_error, MEMFS_EINTERNAL, "could not start libgit2");
    else
        library_code = set_libgit2_options(&library_error);
}

/*
 * Once a process, and never undone: libgit2 forgets its options when the last user is gone, and
 * another thread may be the next one.
 */
memfs_code store_library(memfs_error *err)
{
    pthread_once(&library_once, library_start);
    if (library_code < 0)
        *err = library_error;
    return library_code;
}

/* Only we may write there, and nobody else may be able to: shared volumes have odd owners. */
static memfs_code check_home(const char *home, memfs_error *err)
{
    struct stat st;

    if (stat(home, &st) < 0)
        return memfs_fail_errno(err, "could not look at the data folder");
    if (st.st_mode & 0022)
        return memfs_fail(err, MEMFS_EDENIED, "the data folder may be written by others (mode "
                                              "%03o): run chmod go-w on it",
                          (unsigned)st.st_mode & 0777);
    return MEMFS_OK;
}

static store *store_new(const char *home)
{
    store *s = mem_alloc(sizeof(*s));
    uint8_t random[8];

    hash_random(random, sizeof(random));
    hash_hex(random, sizeof(random), s->token);
    s->home = mem_strdup(home);
    s->tmp = mem_printf("%s/tmp", home);
    s->empty = mem_printf("%s/empty", s->tmp);
    s->ready = mem_printf("%s/ready", s->tmp);
    s->genesis = mem_printf("%s/" STORE_GENESIS_REPO, s->home);
    s->readers = readers_new();
    pthread_mutex_init(&s->mutex, NULL);
    return s;
}

/*
 * A crash while the very first agent was created has no agent whose recovery would sweep it.  A git
 * child that outlived its memfs may still write there: then the next sweep finds it.
 */
static void sweep_before_work(store *s)
{
    memfs_error ignored;
    size_t n = 0;

    if (store_sweep_tmp(s, &n, &ignored) < 0)
        return;
}

static memfs_code store_start(store *s, memfs_error *err)
{
    memfs_code rc = fs_mkdirs(s->empty, err);

    if (rc == MEMFS_OK)
        rc = fs_remove_tree(s->ready, err); /* whatever an earlier process left there */
    if (rc == MEMFS_OK)
        rc = fs_mkdirs(s->ready, err);
    if (rc == MEMFS_OK)
        rc = check_home(s->home, err);
    if (rc == MEMFS_OK)
        rc = git_child_find(s->empty, &s->git, err);
    if (rc == MEMFS_OK)
        rc = make_template(s, err);
    if (rc == MEMFS_OK)
        sweep_before_work(s);
    return rc;
}

memfs_code store_open(const char *home, store **ret, memfs_error *err)
{
    memfs_code rc;
    store *s;

    if (home[0] != '/')
        return memfs_fail(err, MEMFS_EINVALID, "the data folder must be an absolute path");
    rc = store_library(err);
    if (rc < 0)
        return rc;
    s = store_new(home);
    rc = store_start(s, err);
    if (rc < 0)
        store_close(s);
    else
        *ret = s;
    return rc;
}

void store_close(store *s)
{
    if (s == NULL)
        return;
    pthread_mutex_destroy(&s->mutex);
    readers_free(s->readers);
    free(s->home);
    free(s->tmp);
    free(s->empty);
    free(s->ready);
    free(s->genesis);
    free(s->git);
    free(s);
}

/* repositories */

bool store_has(const store *s, const char *name)
{
    return fs_is_dir_beneath(s->home, name);
}

/* Not over what is there.  Where the file system cannot promise that, a rename still fails over a
 * folder that has anything in it. */
static int rename_new(const char *from, const char *to)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    return errno == EINVAL || errno == ENOSYS ? rename(from, to) : -1;
}

static memfs_code publish(const char *stage, const char *path, memfs_error *err)
{
    _cleanup_(mem_freep) char *parent = mem_strndup(path, (size_t)(strrchr(path, '/') - path));
    memfs_code rc = fs_mkdirs(parent, err);

    if (rc < 0)
        return rc;
    if (rename_new(stage, path) < 0) {
        if (errno == EEXIST || errno == ENOTEMPTY)
            return memfs_fail(err, MEMFS_EEXISTS, "the repository is there already");
        return memfs_fail_errno(err, "could not put the new repository in place");
    }
    return fs_sync_dir(parent, err);
}

memfs_code store_create(store *s, const char *name, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = store_path(s, name);
    _cleanup_(mem_freep) char *stage = store_temp_path(s, "create");
    memfs_error ignored;
    memfs_code rc;

    if (!store_name_is_sane(name))
        return memfs_fail(err, MEMFS_EINVALID, "that is no name of a repository");
    if (fs_exists(path))
        return memfs_fail(err, MEMFS_EEXISTS, "the repository is there already");
    rc = fs_copy_tree(s->genesis, stage, err);
    if (rc == MEMFS_OK)
        rc = fs_sync_tree(stage, err);
    if (rc == MEMFS_OK)
        rc = publish(stage, path, err);
    if (rc < 0 && fs_remove_tree(stage, &ignored) < 0)
        memfs_context(err, "(and its remains could not be removed)");
    if (rc == MEMFS_EINTERNAL)
        err->code = MEMFS_EUNAVAIL; /* nothing that could be in doubt was there */
    return rc < 0 ? err->code : rc;
}

memfs_code store_tip_at(const char *git_dir, memfs_oid *ret, memfs_error *err)
{
    return refs_read(git_dir, STORE_MAIN, ret, err);
}

memfs_code store_tip(const store *s, const char *name, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = store_path(s, name);
    memfs_code rc = refs_read(path, STORE_MAIN, ret, err);

    if (rc != MEMFS_ENOTFOUND)
        return rc;
    if (!fs_is_dir(path))
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no such repository");
    return memfs_fail(err, MEMFS_ECORRUPT, "the repository is there but its main branch is gone");
}
