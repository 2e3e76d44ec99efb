/*
 * state.h - what git does not carry and nobody can recompute: durable, never deleted (design 14,
 * F24).
 *
 * Agents, when each block was first seen, the objects that were purged, API tokens (hashed), and
 * what is known of each agent's remotes.  state.db is apart from
 * the cache, written with synchronous=FULL: a call that returns OK has survived a power cut.  A
 * corrupt or newer state stops with instructions and is never begun anew (F23, F29).
 *
 * Errors, beside those named below: ECORRUPT as at state_open_sqlite, EUNAVAIL somebody held it for
 * more than five seconds, ENOSPACE the disk is full.  EUNAVAIL also when the disk failed to make a
 * write durable: what became of it is known after the next one, or the next start (F05).
 *
 * Thread: any; one writing connection behind a mutex, readers by thread, as in cache.h.
 */
#ifndef MEMFS_CACHE_STATE_H
#define MEMFS_CACHE_STATE_H

#include "base/buf.h"
#include "base/oid.h"

typedef struct state state;

/* life cycle.  ECORRUPT: damaged, or made by a newer memfs; the message says what to do. */
MEMFS_CHECK memfs_code state_open_sqlite(const char *folder, state **ret, memfs_error *err);
void state_close(state *s);
/* Reads every page and index: ECORRUPT when something is wrong.  Slow, for verify. */
MEMFS_CHECK memfs_code state_check(state *s, memfs_error *err);

/* agents */
typedef struct state_agent {
    memfs_str id;
    memfs_str org_id;
    memfs_str name;      /* defaults to the id */
    memfs_str tags_json; /* an array of strings */
    int64_t created_at_us;
    int64_t updated_at_us;
    memfs_str fields_json; /* what else the API was told of it, an object; empty: nothing */
    bool is_hidden;        /* from lists that do not ask for hidden ones */
    int64_t deleted_at_us; /* 0: it is there */
    int64_t version;       /* counts its changes */
} state_agent;
#define STATE_MAX_FIELDS (1u << 20)
typedef memfs_code (*state_agent_fn)(const state_agent *agent, void *ctx, memfs_error *err);

/*
 * Which agents a query is about: those that are there, those that were deleted and may be brought
 * back, or both.  One that was only announced is in none.
 */
typedef enum agent_which { AGENTS_LIVING, AGENTS_DELETED, AGENTS_ALL } agent_which;

typedef struct agent_query {
    agent_which which;
    bool with_fields;     /* else fields_json is empty: only the API asks */
    bool without_hidden;
    memfs_str id;         /* empty: all */
    memfs_str name;       /* empty: all */
    memfs_str query_text; /* case-insensitive substring of the name; % and _ act as wildcards */
    const memfs_str *tags;
    size_t n_tags;
    bool match_all_tags;
    bool by_updated;         /* the order is (updated_at, id), not (created_at, id) */
    bool descending;
    memfs_str before, after; /* agent ids, relative to the order; unknown ones are ignored */
    int64_t limit;           /* 0: all */
    bool with_shared;        /* also shared repositories, which are memories but nobody's agent */
} agent_query;

MEMFS_CHECK memfs_code state_agents(state *s, const agent_query *q, state_agent_fn fn, void *ctx,
                                    memfs_error *err);
/* Of agents that are there, without shared repositories. */
MEMFS_CHECK memfs_code state_agent_count(state *s, int64_t *ret, memfs_error *err);
/* Grows with every change of any agent's row, and with nothing else: for the tags of lists. */
MEMFS_CHECK memfs_code state_agents_version(state *s, int64_t *ret, memfs_error *err);
/* A deleted one is known: its folder is no stranger's. */
MEMFS_CHECK memfs_code state_agent_known(state *s, memfs_str id, bool *ret, memfs_error *err);
/*
 * Makes the agent known; an agent that is known stays as it is, and one that was announced is there
 * from now on.
 */
MEMFS_CHECK memfs_code state_agent_add(state *s, memfs_str id, memfs_str org_id, int64_t now_us,
                                       memfs_error *err);
/*
 * What a new agent will be called and have, before its repository is made: nobody sees the row until
 * state_agent_add(), so an agent never shows without what it was made with.  EEXISTS: it is known.
 */
MEMFS_CHECK memfs_code state_agent_announce(state *s, const state_agent *agent, memfs_error *err);
/*
 * Name, tags, fields and is_hidden of an agent that is there become these, if its version is still
 * agent->version (else ECONFLICT: read it anew); updated_at grows in any case.  ENOTFOUND.  EINVALID:
 * tags_json is no list.
 */
MEMFS_CHECK memfs_code state_agent_put(state *s, const state_agent *agent, memfs_error *err);
/*
 * deleted_at_us 0 brings it back.  ENOTFOUND: nobody knows it.  One that is so already stays as it
 * is, and *ret_changed is false.
 */
MEMFS_CHECK memfs_code state_agent_set_deleted(state *s, memfs_str id, int64_t deleted_at_us,
                                               int64_t now_us, bool *ret_changed,
                                               memfs_error *err);

/*
 * What git does not carry of a block: when its label was first seen, and what came with it from a
 * Letta server.  Kept over deletes and rebuilds (K4).
 */
typedef struct state_birth {
    memfs_str label;
    int64_t created_at_us;
    memfs_str tags_json; /* an array; empty: nothing is known of the four, block_id is empty too */
    memfs_str block_id;  /* the id it had before memfs knew it; empty: derived (ids_block) */
    int64_t limit;       /* where the file says none; 0: the default */
    bool hidden;
} state_birth;
typedef memfs_code (*state_birth_fn)(const state_birth *birth, void *ctx, memfs_error *err);
/* Sets the birth of labels that have none, one transaction; n == 0 writes nothing. */
MEMFS_CHECK memfs_code state_births_add(state *s, memfs_str agent_id, const memfs_str *labels,
                                        size_t n, int64_t now_us, memfs_error *err);
/* label empty: all of the agent. */
MEMFS_CHECK memfs_code state_births(state *s, memfs_str agent_id, memfs_str label,
                                    state_birth_fn fn, void *ctx, memfs_error *err);

/* Objects that were purged from an agent's history and may not come back. */
MEMFS_CHECK memfs_code state_banned_add(state *s, memfs_str agent_id, const memfs_oid *ids,
                                        size_t n, memfs_error *err);
/* Sorted; *ret is the caller's (free). */
MEMFS_CHECK memfs_code state_banned(state *s, memfs_str agent_id, memfs_oid **ret, size_t *ret_n,
                                    memfs_error *err);

/*
 * Attributes that came from elsewhere (a rebuild): an agent that is known takes the name and tags,
 * and the earlier of the two created_at; births keep the earlier date and the first block_id that
 * somebody gave; tags, limit and hidden become those of a birth that has tags_json.  What is empty
 * or 0 in `agent` is left as it is.  Nothing makes an agent known here, as known without a repository is an alarm
 * (H4): of one that is not known the births are kept, so that its first rows are dated right; call
 * again when it is known.  Of an agent that has rows, use intake_attributes (sync/intake.h), which brings
 * their dates along.  EINVALID: tags_json is no list.
 */
MEMFS_CHECK memfs_code state_agent_merge(state *s, const state_agent *agent,
                                         const state_birth *births, size_t n, memfs_error *err);

/* API tokens: only their hashes are here (S4).  A token that was revoked keeps its row. */
#define STATE_TOKEN_HASH 32
typedef struct state_token {
    memfs_str id;    /* public: 8 hex digits */
    memfs_str name;  /* a person's word for it; "" */
    memfs_str scope; /* "admin", "agent:ID:rw", ... */
    uint8_t hash[STATE_TOKEN_HASH]; /* SHA-256 of the token */
    int64_t created_at_us;
    int64_t expires_at_us; /* 0: never */
    int64_t revoked_at_us; /* 0: not */
} state_token;
typedef memfs_code (*state_token_fn)(const state_token *token, void *ctx, memfs_error *err);
/* EEXISTS: id or hash are there. */
MEMFS_CHECK memfs_code state_token_add(state *s, const state_token *token, memfs_error *err);
/* All of them, oldest first. */
MEMFS_CHECK memfs_code state_tokens(state *s, state_token_fn fn, void *ctx, memfs_error *err);
/* ENOTFOUND; one that is revoked stays as it is. */
MEMFS_CHECK memfs_code state_token_revoke(state *s, memfs_str id, int64_t now_us,
                                          memfs_error *err);

/* What is known of one agent's copy on one remote; written when it changes, not when asked for. */
typedef struct state_mirror {
    memfs_str agent_id, remote;
    memfs_str mark;          /* of address and credential, when this was learned */
    memfs_oid remote_tip;    /* its main as last seen; zero: none */
    memfs_oid meta_tip;      /* refs/memfs/meta there; zero: none */
    int64_t seen_at_us;      /* when remote_tip was written */
    int64_t pushed_at_us;    /* last good push; 0 */
    int64_t proof_at_us;     /* 0 */
    memfs_oid proof_tree;
    memfs_str answer;        /* name of the failure that stands; "" */
    memfs_str detail;
    int64_t n_failures;
    int64_t failed_at_us, next_try_us; /* 0 */
    memfs_str note, note_text; /* mirror_note_name; "" */
    int64_t note_at_us;
} state_mirror;
typedef memfs_code (*state_mirror_fn)(const state_mirror *row, void *ctx, memfs_error *err);
/* Empty: all; ordered by agent, remote. */
MEMFS_CHECK memfs_code state_mirrors(state *s, memfs_str agent_id, memfs_str remote,
                                     state_mirror_fn fn, void *ctx, memfs_error *err);
/*
 * Behind the writes of requests, which wait for one such row at most.  A row that is so already
 * costs no write.
 */
MEMFS_CHECK memfs_code state_mirror_put(state *s, const state_mirror *row, memfs_error *err);
/* Rows of a remote that is configured no more. */
MEMFS_CHECK memfs_code state_mirror_forget(state *s, memfs_str remote, memfs_error *err);

/*
 * A text that memfs must not forget, of a kind and under an id that is printable ASCII: "loose"
 * (sync/loose.h), "edit" (sync/edit.h).
 */
typedef struct state_doc {
    memfs_str kind, id;
    memfs_str body;  /* any bytes; empty in a change: it goes */
    int64_t changed; /* the mark of its kind when it was written; in a change: what it must be, or
                        0, whatever it is */
} state_doc;
typedef memfs_code (*state_doc_fn)(const state_doc *doc, void *ctx, memfs_error *err);
/* id empty: all of the kind, by id.  Those that changed after that mark; 0: all. */
MEMFS_CHECK memfs_code state_docs(state *s, memfs_str kind, memfs_str id, int64_t after,
                                  state_doc_fn fn, void *ctx, memfs_error *err);
/* Rises with each change of a document of that kind; 0: there never was one. */
MEMFS_CHECK memfs_code state_docs_mark(state *s, memfs_str kind, int64_t *ret, memfs_error *err);

/*
 * Births as they are given, whatever was known (tags_json "" as in state_birth), and one whose
 * created_at_us is 0 goes; and documents.  All in one transaction.  ECONFLICT: a document is not as
 * it must be, and nothing was changed.
 */
typedef struct state_change {
    memfs_str agent_id; /* of the births */
    const state_birth *births;
    size_t n_births; /* each label once */
    const state_doc *docs;
    size_t n_docs;
} state_change;
MEMFS_CHECK memfs_code state_change_apply(state *s, const state_change *change, memfs_error *err);

/* All rows into another state, which keeps what it has; of what both have the earlier dates count. */
MEMFS_CHECK memfs_code state_copy_into(state *from, state *to, memfs_error *err);
/*
 * A consistent copy of the whole state into a new file, for backups: durable, mode 0600, and on no
 * other's way.  EEXISTS: `to` is there.
 */
MEMFS_CHECK memfs_code state_copy(state *s, const char *to, memfs_error *err);

#endif
