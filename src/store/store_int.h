/*
 * store_int.h - what the files of this room share.  Nobody else includes it.
 */
#ifndef MEMFS_STORE_STORE_INT_H
#define MEMFS_STORE_STORE_INT_H

#include "store/readers.h"
#include "store/store.h"

#include <git2.h>
#include <pthread.h>
#include <stdatomic.h>

/* Raw trees and commits larger than this are not loaded: no honest memory has one (T13). */
#define OBJECT_MAX_TREE_BYTES (32u << 20)
#define OBJECT_MAX_COMMIT_BYTES (1u << 20)

/* What a whole tree adds up to, remembered by its id: a pure function, so it never goes stale. */
typedef struct tree_totals {
    uint64_t n_entries;
    uint64_t bytes;
} tree_totals;

#define IDLE_FOLDERS 8
#define TOTALS_SLOTS 2048
typedef struct totals_slot {
    memfs_oid tree;
    tree_totals totals;
} totals_slot;

struct store {
    char *home;
    char *tmp;
    char *empty;   /* an empty folder, HOME of every child */
    char *ready;   /* empty incoming folders, to be used again */
    char *genesis; /* the template repository */
    char *git;     /* absolute path of git */
    char token[17]; /* in the names of our temporary folders; others' are left over from a crash */
    atomic_uint counter;
    readers *readers;
    pthread_mutex_t mutex; /* guards what follows; a leaf: nothing is taken under it */
    totals_slot totals[TOTALS_SLOTS];
    bool is_ready[IDLE_FOLDERS]; /* is there a folder ready/<i>? */
};

/*
 * An object database and libgit2's view of it.  There is no libgit2 repository with a folder behind
 * it: no configuration, grafts or hooks are ever read, and alternates only in a checkout.
 */
struct repo {
    store *s;   /* NULL: a checkout's (checkout.h); nobody retires its packs for us */
    char *path; /* the repository; NULL: objects only (a quarantine) */
    git_odb *odb;
    git_repository *view; /* wraps odb */
    uint64_t reader;      /* since before the packs were listed; readers.h; 0 without a store */
    bool is_unsynced;     /* repo_is_unsynced() */
};

/* store.c: libgit2 is up, with our options, until the process ends. */
MEMFS_CHECK memfs_code store_library(memfs_error *err);
/* The empty tree and the genesis commit, loose and synced. */
MEMFS_CHECK memfs_code store_write_genesis(const char *objects, memfs_error *err);
/* A new path in tmp/ for this kind of work; caller frees. */
char *store_temp_path(store *s, const char *kind);
/* False for names that could leave the folder; an assertion against our own bugs. */
bool store_name_is_sane(const char *name);

/* care.c: removes what another process' pushes and creations left in tmp/; counts into *ret_n. */
MEMFS_CHECK memfs_code store_sweep_tmp(const store *s, size_t *ret_n, memfs_error *err);

/*
 * What an earlier commit holds is judged by nobody: nobody could ever mend it.  But whatever reads
 * history (vetting, a diff) has bounds as well, far beyond the policy's: an honest memory that was
 * once too large passes, and a bomb does not.
 */
static inline policy store_policy_of_history(const policy *p)
{
    policy wide = *p;

    wide.max_depth *= 4;
    wide.max_entries *= 10;
    return wide;
}

/* store_fsck of any folder. */
MEMFS_CHECK memfs_code store_fsck_at(store *s, const char *path, memfs_error *err);

/* repo.c */
/*
 * Translates libgit2's last error, once, at the door.  Its text is kept when it names no path.
 */
memfs_code store_fail_git(memfs_error *err, int number, const char *fmt, ...) MEMFS_PRINTF(3, 4);
void repo_git_oid(const memfs_oid *from, git_oid *to);
void repo_memfs_oid(const git_oid *from, memfs_oid *to);
/* Backends of one objects folder; new objects are written, synced, only where `is_home`. */
MEMFS_CHECK memfs_code repo_add_objects(git_odb *odb, const char *objects_dir, bool is_home,
                                        memfs_error *err);
/*
 * The handle over an odb and of a reader (readers_begin) that it then owns, also on failure.  path
 * is given, may be NULL.
 */
MEMFS_CHECK memfs_code repo_of_odb(store *s, char *path, git_odb *odb, uint64_t reader, repo **ret,
                                   memfs_error *err);
void repo_odb_object_freep(git_odb_object **object);
/* ECORRUPT: absent or of another type. ELIMIT: larger than its kind may be. */
MEMFS_CHECK memfs_code repo_read_tree(repo *r, const memfs_oid *id, git_odb_object **ret,
                                      memfs_error *err);
MEMFS_CHECK memfs_code repo_read_commit(repo *r, const memfs_oid *id, git_odb_object **ret,
                                        memfs_error *err);
MEMFS_CHECK memfs_code repo_tree_of_commit(repo *r, const memfs_oid *commit, memfs_oid *ret,
                                           memfs_error *err);
static inline memfs_str repo_raw(git_odb_object *object)
{
    return str_make(git_odb_object_data(object), git_odb_object_size(object));
}
/* amend.c: what a commit has at a path, also a folder; its name is not kept.  ENOTFOUND. */
MEMFS_CHECK memfs_code repo_find_entry(repo *r, const memfs_oid *commit, memfs_str path,
                                       tree_entry *ret, memfs_error *err);
/* Reads type and size from the header alone. */
MEMFS_CHECK memfs_code repo_header(repo *r, const memfs_oid *id, git_object_t *ret_type,
                                   uint64_t *ret_bytes, memfs_error *err);
/* commit_tree.c: one object, synced; for good only once a commit is written after it. */
MEMFS_CHECK memfs_code repo_write(repo *r, git_object_t type, memfs_str bytes, memfs_oid *ret,
                                  memfs_error *err);
/* As git orders entries of a tree: folders as if their name ended in '/'. */
int repo_entry_compare(const tree_entry *a, const tree_entry *b);
static inline bool repo_entry_is_folder(const tree_entry *e)
{
    return (e->mode & 0170000) == 0040000;
}
static inline bool repo_entry_is_gitlink(const tree_entry *e)
{
    return (e->mode & 0170000) == 0160000;
}

/* refs.c: what a loose or packed ref holds. ENOTFOUND: there is no such ref. */
MEMFS_CHECK memfs_code refs_read(const char *repo_path, const char *ref, memfs_oid *ret,
                                 memfs_error *err);
/*
 * Moves a ref by compare-and-swap: synced, logged, read back.  expected may be zero: the ref must
 * not be there yet.  Whatever target is, its objects are synced by now.
 */
MEMFS_CHECK memfs_code refs_move(const char *repo_path, const char *ref, const memfs_oid *expected,
                                 const memfs_oid *target, const store_identity *who,
                                 const char *why, memfs_error *err);
/* One line of a reflog, with its end; time_zone is as in "+0200". */
void refs_log_line(const memfs_oid *old, const memfs_oid *target, const store_identity *who,
                   const char *time_zone, const char *why, memfs_buf *out);
/* In one write; the folder of the log is there. */
MEMFS_CHECK memfs_code refs_log_append(const char *log_path, memfs_str line, unsigned mode,
                                       memfs_error *err);

#endif
