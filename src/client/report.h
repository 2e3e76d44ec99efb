/*
 * report.h - where one agent's memory stands: the value that apply, sync, status, exec and watch
 * speak in, as a line for people and as an object for programs (stable keys, docs/client.md).
 */
#ifndef MEMFS_CLIENT_REPORT_H
#define MEMFS_CLIENT_REPORT_H

#include "base/json.h"
#include "client/backend.h"
#include "store/checkout.h"

typedef struct client_report {
    char agent_id[64];
    char *memory;     /* path of the checkout */
    bool is_there;    /* a repository is there */
    bool was_created; /* by this call */
    bool was_adopted; /* a folder without .git became one */
    checkout_state checkout;
    backend backend;
    bool has_remote;
    char *remote;                       /* address without secrets; NULL */
    remote_answer answer;               /* as of asked_at; REMOTE_UNASKED: nobody asked */
    int64_t asked_at_s, ask_again_at_s; /* wall clock; 0: never, at once */
    char detail[200];
    bool has_remote_main;
    memfs_oid remote_main;                    /* newest known of the remote */
    size_t n_ahead, n_behind;                 /* against remote_main */
    bool was_pushed, was_updated, was_merged; /* by this call */
    size_t n_by_rule;                         /* merge decisions by rule, not yet looked at */
    size_t n_rescued;                         /* tips that nothing else keeps */
    size_t n_queued;                          /* post-commit mirrors waiting */
    int64_t mirror_again_at_s;                /* and the next time; 0: at once */
    char mirror_detail[200];                  /* why the last one failed */
    size_t n_pending;                         /* worktrees' merges that wait for a clean checkout */
    int64_t oldest_unpushed_s;                /* commit time; 0: all is there */
    bool is_off;                              /* LETTABOT_MEMFS=false */
    bool is_misconfigured; /* detail says what to set; as backend_choice has it */
    char held_back[300]; /* why the checkout was not brought up to date: "2 files are not committed"
                          */
    bool is_withheld;    /* see backend.h */
    char *notes;         /* lines: what prepare left alone and why; NULL: nothing */
    memfs_error error;   /* local failure; code OK when none */
} client_report;
#define CLIENT_REPORT_INIT                                                                         \
    {                                                                                              \
        .memory = NULL                                                                             \
    }
void client_report_dispose(client_report *r);

/* Backend, remote, why there is none, warning as detail: what a choice says. */
void client_report_choice(client_report *r, const backend_choice *choice);

/* "synced", "ahead", "behind", "diverged", "local-only", "held-back", "no-remote", "failed",
 * "missing", "off": the one word of the state; the first that holds of failed, off, missing,
 * no-remote, held-back, local-only, and then by the commits. */
const char *client_report_state(const client_report *r);
/* One line: state, why, and what to do; without the agent and without a newline. */
void client_report_line(const client_report *r, memfs_buf *out);
/* ", tried again in 40 s"; nothing when the time has come, or none is known. */
void client_report_again(int64_t at_s, memfs_buf *out);
void client_report_json(const client_report *r, json_writer *w);
/* 0, 3, 4, ... of `sync` (cli/exit.h has the names); apply only fails for local reasons. */
int client_report_exit(const client_report *r);

#endif
