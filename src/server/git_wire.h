/*
 * git_wire.h - what is said in git's packets: requests read, answers written (http-api 2).
 *
 * Pure: bytes in, values out.  Slices in what is parsed borrow from the bytes that were parsed.
 */
#ifndef MEMFS_SERVER_GIT_WIRE_H
#define MEMFS_SERVER_GIT_WIRE_H

#include "server/pktline.h"
#include "sync/push.h"

#define GIT_WIRE_MAX_COMMANDS 16               /* T10 */
#define GIT_WIRE_MAX_COMMAND_BYTES (64u << 10) /* all command packets of one push */
#define GIT_WIRE_MAX_PREFIXES 64

typedef enum git_service { GIT_UPLOAD_PACK, GIT_RECEIVE_PACK } git_service;
/* "git-upload-pack" */
const char *git_service_name(git_service service);
bool git_service_parse(memfs_str name, git_service *ret);

/* The version that a Git-Protocol header asks for, as git picks it: 0, 1 or 2.  NULL is 0. */
int git_protocol_version(const char *header);

/* ---- advertisements: the body of info/refs, refs being HEAD and main at tip ---- */

void git_advertise_v2(memfs_buf *out);
void git_advertise_refs(memfs_buf *out, git_service service, const memfs_oid *tip);

/* ---- protocol v2: command=ls-refs ---- */

typedef struct git_ls_refs {
    bool peel, symrefs, unborn;
    memfs_str prefixes[GIT_WIRE_MAX_PREFIXES];
    size_t n_prefixes;
} git_ls_refs;

typedef enum git_v2_command {
    GIT_V2_NONE,
    GIT_V2_LS_REFS,
    GIT_V2_FETCH,
    GIT_V2_OTHER
} git_v2_command;

/*
 * Which command a v2 request holds, and the arguments of ls-refs.  GIT_V2_NONE: only a flush (what
 * git sends to end a session).  EINVALID: malformed, or more than one command.
 */
MEMFS_CHECK memfs_code git_v2_parse(memfs_str body, git_v2_command *ret, git_ls_refs *ret_ls,
                                    memfs_error *err);
void git_ls_refs_answer(memfs_buf *out, const git_ls_refs *ls, const memfs_oid *tip);

/* ---- receive-pack ---- */

typedef struct git_push_request {
    push_command commands[GIT_WIRE_MAX_COMMANDS];
    size_t n_commands;
    bool report_status, report_status_v2, side_band_64k, quiet, atomic;
} git_push_request;

/*
 * Reads the commands at the head of a push; needs all of them up to their flush.  MEMFS_OK with
 * *ret_used bytes taken; *ret_used == 0: more bytes are needed.  A request without a command (a
 * lone flush, git's probe) has n_commands == 0.  EINVALID: malformed, push certificates, push
 * options, another object format.  ELIMIT: more than 16 refs.
 */
MEMFS_CHECK memfs_code git_push_parse(memfs_str bytes, git_push_request *ret, size_t *ret_used,
                                      memfs_error *err);

/* The report: unpack_error "" for "ok"; refusals[i] NULL for "ok <ref>".  Without its own band. */
void git_push_report(memfs_buf *out, const git_push_request *rq, const char *unpack_error,
                     const char *const *refusals);

#endif
