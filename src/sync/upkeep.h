/*
 * upkeep.h - the work on a home that is not a request: verify, rebuild, repack, backup, purge.
 *
 * Each call works through one agent (id not empty) or all, tells its progress and what it finds,
 * and can be stopped by progress returning false.  The command line runs these in its own process
 * when nobody owns the home, and asks the server to run them when one does.
 *
 * Thread: any one thread a call; agents' locks are taken one at a time.
 */
#ifndef MEMFS_SYNC_UPKEEP_H
#define MEMFS_SYNC_UPKEEP_H

#include "sync/home.h"

typedef struct upkeep_watcher {
    /* done of total, now at `agent_id`.  False stops after this agent. */
    bool (*progress)(size_t done, size_t total, const char *agent_id, void *ctx);
    /*
     * one thing found or done, as a kind ("row-differs") with a path or label ("" if none) and text
     */
    void (*finding)(const char *agent_id, const char *kind, const char *what, const char *text,
                    void *ctx);
    void *ctx;
} upkeep_watcher;

typedef struct upkeep_result {
    size_t n_agents;
    size_t n_findings;
    size_t n_failed; /* agents that could not be worked on; each is a finding too */
} upkeep_result;

/*
 * Compares rows with what f gives for the tree at main, both ways (row without file, file without
 * row, fields that differ, wrong tip), the ref with its reflog, and the repository with fsck; over
 * all also the cache's file, and folders and rows that are no agent's.  Mends nothing; fences an
 * agent that is damaged (F12), and lifts the fence of one that is whole again.
 *
 * Kinds: row-missing, row-extra, row-differs, row-of-nobody, tip-differs, ref-moved,
 * reflog-missing, repository-damaged, folder-missing, folder-unknown, cache-damaged, not-checked (a
 * check that could not end), failed; told but not counted: fence-lifted, no-rows-yet.
 */
MEMFS_CHECK memfs_code upkeep_verify(home *h, memfs_str agent_id, const upkeep_watcher *w,
                                     upkeep_result *ret, memfs_error *err);
/* All rows anew; over all, a damaged cache is set aside first, and rows of nobody go. */
MEMFS_CHECK memfs_code upkeep_rebuild(home *h, memfs_str agent_id, const upkeep_watcher *w,
                                      upkeep_result *ret, memfs_error *err);
/* Repacks repositories that have more than STORE_REPACK_AT packs. */
MEMFS_CHECK memfs_code upkeep_repack(home *h, memfs_str agent_id, const upkeep_watcher *w,
                                     upkeep_result *ret, memfs_error *err);

/*
 * A copy of the home that some instant really had (D7): the state first, then each repository under
 * its lock, with a manifest of tips; staged beside `to` and renamed.  The home's configuration comes
 * along, secrets/ does not.  EEXISTS: `to` is there.
 */
MEMFS_CHECK memfs_code upkeep_backup(home *h, const char *to, const upkeep_watcher *w,
                                     upkeep_result *ret, memfs_error *err);
/*
 * Makes `home_path` (absent or empty) from a backup, after checking it against its manifest.  No
 * home is open; the cache is made anew at the first touch.
 */
MEMFS_CHECK memfs_code upkeep_restore(const char *from, const char *home_path,
                                      const upkeep_watcher *w, upkeep_result *ret,
                                      memfs_error *err);

/*
 * Takes a secret out of one agent's history, cache and reflogs (T28).  Blobs named in `blobs`, or
 * holding `needle` (occurrences become "[purged]"; a blob named by id is replaced whole), are
 * replaced in every commit; commit messages too.  The old objects are dropped from disk, banned,
 * and their absence checked by id.
 *
 * Told: purged (would-purge in a dry run), a file that is replaced; name-kept, a path that has the
 * needle in its name and stays.
 */
typedef struct purge_request {
    memfs_str agent_id;
    memfs_str needle; /* at least 4 bytes, or empty */
    const memfs_oid *blobs;
    size_t n_blobs;
    bool dry_run;
} purge_request;
typedef struct purge_result {
    memfs_oid old_tip, new_tip;
    size_t n_blobs, n_commits; /* replaced */
} purge_result;
MEMFS_CHECK memfs_code upkeep_purge(home *h, const purge_request *request, const upkeep_watcher *w,
                                    purge_result *ret, memfs_error *err);

#endif
