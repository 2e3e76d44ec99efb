/*
 * prepare_int.h - what the files of prepare share: prepare.c (the steps and their lock),
 * prepare_config.c (what git is told), prepare_hooks.c (our hooks' folder).  Nobody else includes
 * it.
 */
#ifndef MEMFS_CLIENT_PREPARE_INT_H
#define MEMFS_CLIENT_PREPARE_INT_H

#include "client/prepare.h"
#include "client/turn.h"

typedef struct preparation {
    const settings *s;
    const place *p;
    const backend_choice *choice; /* NULL: none is known */
    prepared *ret;
    turn turn;
    bool is_adopting; /* files of the folder are still to be committed */
    char git_dir[4096];
} preparation;

/*
 * What git is told, as far as it is not told yet; `before` is called ahead of a change, may be
 * NULL.
 */
typedef memfs_code (*prepare_before_fn)(void *ctx, memfs_error *err);
typedef struct configuring {
    const settings *s;
    const char *git_dir, *agent_id;
    const backend_choice *choice;
    prepared *ret;
    prepare_before_fn before;
    void *ctx;
    bool is_other_origin; /* result: origin pointed elsewhere before */
} configuring;
MEMFS_CHECK memfs_code prepare_config_apply(configuring *c, memfs_error *err);
/* .git/info/attributes names our merge driver, unless the user's own does. */
MEMFS_CHECK memfs_code prepare_attributes(const char *git_dir, prepared *ret, memfs_error *err);

#endif
