/*
 * meta_text.h - agent.json of refs/memfs/meta: what git does not carry of one agent, as a text.
 *
 *     {"agent_id":"agent-…","births":{"human":"2026-01-01T00:00:00Z"},"created_at":"…",
 *      "name":"Ada","tags":["a","b"],"version":1}
 *
 * The same attributes give the same bytes, wherever they are written: keys, labels and tags sorted
 * by bytes, no blanks but a newline at the end; name and tags are left out where nobody set them.
 *
 * It may come from a hostile remote: parsing is bounded, and refuses what this server would not have
 * written.  Keys that are not known are passed over (a newer memfs).
 *
 * Pure; any thread.
 */
#ifndef MEMFS_MIRROR_META_TEXT_H
#define MEMFS_MIRROR_META_TEXT_H

#include "cache/state.h"

#define META_FILE "agent.json"
#define META_MAX_BYTES (4u << 20)
#define META_MAX_TAGS 256
#define META_MAX_NAME 512 /* bytes, of a name or tag */

typedef struct meta_birth {
    char *label;
    int64_t at_us;
} meta_birth;

typedef struct meta_text {
    char *agent_id, *name; /* name: "" when it is the id */
    char **tags;
    size_t n_tags;
    int64_t created_at_us;
    meta_birth *births;
    size_t n_births;
} meta_text;
#define META_TEXT_INIT { .agent_id = NULL }
void meta_text_dispose(meta_text *t);

/* EINVALID: no such text, or of another agent. */
MEMFS_CHECK memfs_code meta_text_parse(memfs_str text, const char *agent_id, meta_text *ret,
                                       memfs_error *err);
/* Sorts t on the way. */
void meta_text_write(meta_text *t, memfs_buf *out);

/*
 * What both say, the same whichever comes first: the earlier times, both lists of tags; of two names
 * the one that somebody gave, of two given ones the first by bytes.
 */
void meta_text_join(const meta_text *a, const meta_text *b, meta_text *ret);
/* A deep copy with the earlier births of both, and all else of `of`. */
void meta_text_follow(const meta_text *of, const meta_text *births, meta_text *ret);
bool meta_text_is_alike(const meta_text *a, const meta_text *b); /* names and tags */

/* ---- to and from the state ---- */

MEMFS_CHECK memfs_code meta_text_load(state *s, const char *agent_id, meta_text *ret,
                                      memfs_error *err);
/* Slices of t, which lives longer: *ret_births is the caller's (free). */
void meta_text_as_state(const meta_text *t, memfs_buf *tags_json, state_agent *ret,
                        state_birth **ret_births);

#endif
