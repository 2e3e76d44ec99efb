/*
 * movein.h - the memory of an agent that a Letta server keeps in its tables becomes a repository.
 *
 *     movein_new      one agent
 *     movein_block    each of its blocks, in any order
 *     movein_finish   the repository is made, or brought up to date
 *
 * What Letta has is a line of commits of its own: each has one file a block and no other, its
 * parent is the one before it (the genesis, of the first), and its committer is MOVEIN_EMAIL.  It
 * is merged into main as what a remote has (intake.h).  So the last of them in main's history is
 * what was moved in before, and the base of the next merge: what nobody changed here follows Letta,
 * what nobody changed there stays, what both changed is merged, and the same again makes no commit.
 * A run that was killed left it or did not.
 *
 * The file of a block is <label>.md (skills/<name>/SKILL.md).  A label that makes no file name
 * which the push policy takes, or one that cannot stand beside another block's, becomes
 * letta/<label, as far as it goes>-<8 digits of its id>.md; the commit's message has the label.
 *
 * What git does not carry (ids, tags, limits, hidden, dates) goes into the state.  The id of a
 * block that several agents share is not taken over: memfs has a file, and so a block, for each of
 * them.
 *
 * Thread: any one thread a movein; movein_finish waits for the agent's lock.
 */
#ifndef MEMFS_SYNC_MOVEIN_H
#define MEMFS_SYNC_MOVEIN_H

#include "cache/letta_db.h"
#include "memory/yaml.h"
#include "sync/home.h"

#define MOVEIN_EMAIL "import@letta.localhost"

typedef struct movein movein;

/* What is copied of agent and block; the home must live longer. */
movein *movein_new(home *h, const letta_agent *agent);
void movein_free(movein *m);
void movein_freep(movein **m);
void movein_block(movein *m, const letta_block *block);

/*
 * One thing worth telling, as a kind with label or path and a text:
 *   renamed           the file of this label has another name
 *   shared            other agents have this block, too
 *   metadata-dropped, description-dropped   what no front matter holds
 *   too-large-to-read   kept as a file; its block is empty, as any of more than 1 MiB
 *   merged            both sides changed it, and a rule decided
 *   would-write, would-remove   a dry run: this path
 *   left-out          not kept: larger than any file of a memory may be
 *   left-alone        tables mode, which keeps files and blocks of one name: stays Letta's only
 */
typedef void (*movein_note_fn)(const char *kind, memfs_str what, const char *text, void *ctx);

typedef enum movein_outcome {
    MOVEIN_UNCHANGED,
    MOVEIN_MADE,
    MOVEIN_CHANGED, /* main has what Letta has changed since */
    MOVEIN_MERGED,  /* the same, beside what was changed here */
} movein_outcome;

typedef struct movein_result {
    movein_outcome outcome; /* of a dry run: MADE or CHANGED where there is something to do */
    size_t n_blocks, n_left_out;
} movein_result;

/*
 * is_dry: nothing is written.  Errors as intake_fetched: EUNAVAIL a repository that is gone or
 * locked for long, EDENIED what the push policy refuses, ECORRUPT a repository that is fenced.
 */
MEMFS_CHECK memfs_code movein_finish(movein *m, bool is_dry, movein_note_fn fn, void *ctx,
                                     movein_result *ret, memfs_error *err);

/* The parts of it that tables mode takes blocks in with, too. */
typedef struct movein_lost {
    bool metadata, description; /* left out, as no front matter can hold it */
} movein_lost;
/* The file of a block, so that it reads back with the block's value.  False: too large. */
bool movein_file(const letta_block *block, memfs_buf *out, movein_lost *ret_lost);
bool movein_reads_back(memfs_str file, memfs_str value);
/* A mapping of *doc, or NULL: none, or (*ret_is_lost) nothing that YAML can say. */
const yaml_value *movein_metadata(memfs_str json, yaml_doc *doc, bool *ret_is_lost);

/* A path, and what file systems that fold case and form see of it (movein_fold). */
typedef struct movein_name {
    memfs_str path, key;
} movein_name;
void movein_fold(memfs_str path, memfs_buf *out);
/* Two files; as far as some file system sees the same folders, they have to be written alike. */
bool movein_can_stand_together(movein_name one, movein_name two);

#endif
