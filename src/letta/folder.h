/*
 * folder.h - the folder in which a Letta server keeps its repositories (http-api 2.6, letta.md).
 *
 *     {root}/repository/{organization}/{agent}/repo.git       root: its ~/.letta/memfs
 *
 * The server reads a repository by listing every file of it and copying them one by one, and writes
 * by truncating and writing them, with no lock.  So here:
 *
 *     nothing appears under repo.git and vanishes    all is made beside it, in .memfs-<random>, and
 *                                                    renamed in; there are no lock files
 *     a repository appears whole                     with its first commit, by one rename
 *     objects, a moment, then the ref                the pack, its index, and only then main, loose
 *     what the server wrote is never written over    what was main keeps a name until it was seen
 *                                                    to be what was expected; else it is taken in
 *     it can read and write all of it                files have the owner of root, as far as we may
 *                                                    say so, and its group's rights
 *     packs that others hold too are removed late    LETTA_OLD_S after one that has all of it came
 *
 * An agent's organization is the one that has its folder.  Of an agent without one it is what the
 * server itself said (letta_folder_told); without that nothing is made for it, as the server does
 * not know it.
 *
 * Thread: any; whoever publishes for an agent is alone with it (the mirror's pair).
 */
#ifndef MEMFS_LETTA_FOLDER_H
#define MEMFS_LETTA_FOLDER_H

#include "store/store.h"

#define LETTA_OLD_S 600
#define LETTA_FOLD_AT 32 /* packs */

typedef struct letta_folder letta_folder;

/* life cycle.  root is an absolute path; it need not be there yet. */
letta_folder *letta_folder_new(const char *root);
void letta_folder_free(letta_folder *f);
const char *letta_folder_root(const letta_folder *f);

/*
 * The server said so of an agent, whose first commit is here; remembered, of the last some
 * thousand. org is checked: false, and nothing is remembered, when it is no organization's id.
 */
bool letta_folder_told(letta_folder *f, memfs_str agent_id, memfs_str org);
/*
 * May that organization's clients have the agent's memory?  is_here: there is one.  ENOTFOUND: no,
 * another organization has its folder or was told of; or no folder is there, a memory all the same,
 * and nothing was told: an agent that the server does not know.  EUNAVAIL: so it is, and no agent
 * has a folder, or none can be looked at.
 */
MEMFS_CHECK memfs_code letta_folder_admits(letta_folder *f, memfs_str agent_id, memfs_str org,
                                           bool is_here, memfs_error *err);

/* The same while the folder cannot be looked at: by what was told, or seen, before.  EUNAVAIL. */
MEMFS_CHECK memfs_code letta_folder_admits_unseen(letta_folder *f, memfs_str agent_id,
                                                  memfs_str org, memfs_error *err);

/* reading */
typedef enum letta_place {
    LETTA_THERE,
    LETTA_TOLD,    /* where it will be */
    LETTA_UNKNOWN, /* where it may have been: the only organization there is, or the default one */
} letta_place;
/* The absolute path of its repo.git; caller frees. */
char *letta_folder_path(letta_folder *f, const char *agent_id, letta_place *ret_place);
/*
 * The same without a look at the volume, which may hang, by what was said and seen before; NULL:
 * nobody can say.
 */
char *letta_folder_guess(letta_folder *f, const char *agent_id);
/*
 * Where its main is.  ENOTFOUND: there is no repository (*ret_place says more).  ECORRUPT: it is
 * half-written; look again in a moment.  EUNAVAIL: root is not there, or cannot be looked at.
 */
MEMFS_CHECK memfs_code letta_folder_tip(letta_folder *f, const char *agent_id,
                                        letta_place *ret_place, memfs_oid *ret, memfs_error *err);

/* ECORRUPT: objects of it are links, or it has alternates; nothing is fetched from there (T01). */
MEMFS_CHECK memfs_code letta_folder_check(letta_folder *f, const char *agent_id, memfs_error *err);

/* changing */
/*
 * main of the agent becomes tip, which descends from expected; both are in the repository `name` of
 * s.  expected zero: there is none yet, and it is made.  ECONFLICT: the server wrote meanwhile, and
 * nothing of that is lost: it is in main, or left (below).  Synced when it returns.
 * *ret_is_moved: readers may have seen tip, however it ended.
 */
MEMFS_CHECK memfs_code letta_folder_publish(letta_folder *f, store *s, const char *name,
                                            const char *agent_id, const memfs_oid *expected,
                                            const memfs_oid *tip, bool *ret_is_moved,
                                            memfs_error *err);

/*
 * What a publish that was killed, failed, or met a write left beside the repository: the commits
 * that main may have named before (zero: none can be read, yet or ever), for how long it was met so
 * by this process, and the folder that has it.  true: it is part of what the caller has, and the
 * folder may go, if all in it could be read.  Before each look, and alone with the agent.
 */
typedef bool (*letta_left_fn)(const memfs_oid *id, int64_t age_s, const char *stage, void *ctx);
void letta_folder_each_left(letta_folder *f, const char *agent_id, letta_left_fn fn, void *ctx);
/* Is there anything, or is a publish at it? */
bool letta_folder_has_left(letta_folder *f, const char *agent_id);

/* Each agent's folder, in no order; false ends it.  path: of its main. */
typedef bool (*letta_folder_fn)(const char *agent_id, const char *path, void *ctx);
void letta_folder_each(letta_folder *f, letta_folder_fn fn, void *ctx);

#endif
