/*
 * reread.h - making a Letta server read memories again that changed behind its back.
 *
 * An unpatched server re-reads an agent's repository after whatever is posted to its own
 * git-receive-pack route, the four bytes `0000` among it (http-api 2.4), which its proxy hands on
 * to us and we answer with 200 and nothing.  So that is posted for every agent whose main we moved
 * in the server's folder.  After a push that came through it the server re-reads by itself, but only
 * once it has relayed the whole report, and whether it did nobody tells us: it may have been
 * restarted, or its client cut.  So that is posted, too, some seconds after the last such push.
 * What it costs the server: to read and upsert the agent's files once more; pushes that follow each
 * other within these seconds share that.
 *
 *     reread_mark      before main moves in the folder: written down, $MEMFS_HOME/letta/<agent>
 *     reread_due       after it: posted soon
 *     reread_stays     it did not move: taken back, if nothing else wants it
 *     (posted)         the file goes, unless it was marked again meanwhile
 *
 * So nothing is forgotten by a kill; what comes meanwhile is one post; and nobody waits.  A server
 * that is away, or refuses us, is asked again after 1 s to 5 min, and so is it of an agent that it
 * cannot read, while others have their turn; one that it does not know is told of and left.
 *
 * Thread: any; one of its own posts, an agent at a time.
 */
#ifndef MEMFS_LETTA_REREAD_H
#define MEMFS_LETTA_REREAD_H

#include "base/error.h"
#include "base/str.h"

typedef struct reread reread;

typedef struct reread_options {
    const char *home;       /* $MEMFS_HOME */
    const char *url;        /* of the server: http(s)://host[:port], as reread_check_url takes it */
    const char *token_file; /* its password, where it wants one; read at each post.  NULL: none */
    void (*event)(const char *event, const char *agent_id, const char *text, void *ctx);
    void *event_ctx;
} reread_options;
/* EINVALID: no address of a server. */
MEMFS_CHECK memfs_code reread_check_url(const char *url, memfs_error *err);
/* What an earlier process left undone is due at once. */
MEMFS_CHECK memfs_code reread_start(const reread_options *options, reread **ret, memfs_error *err);
/* Waits for a post that runs, a second or so.  NULL is fine. */
void reread_stop(reread *r);

/* All of these take NULL for r, a server whose address is not known: nothing is posted. */
void reread_mark(reread *r, const char *agent_id);
void reread_due(reread *r, const char *agent_id);
void reread_stays(reread *r, const char *agent_id);
/*
 * Between these two a move is one that the server re-reads by itself, most likely, once it has
 * relayed the report: it is marked, and posted later.
 */
void reread_relay_begin(reread *r, memfs_str agent_id);
void reread_relay_end(reread *r, memfs_str agent_id);
/*
 * After each reread_relay_end: it was handed the report, and what is marked is posted in some
 * seconds; or it was not, and it is due.
 */
void reread_relay_told(reread *r, memfs_str agent_id, bool is_told);

#endif
