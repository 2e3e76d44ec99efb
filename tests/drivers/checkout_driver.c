/*
 * checkout-driver - checkouts by themselves, for tests/integration/test_checkout_crash.py: one
 * call, and what came of it on a line, "OK …" or "<CODE> <message>".
 *
 *     checkout-driver create PATH             checkout-driver bare PATH
 *     checkout-driver update PATH FROM TO     checkout-driver recover PATH
 *     checkout-driver inspect PATH            checkout-driver commit PATH MESSAGE
 *     checkout-driver move PATH REF OLD NEW   checkout-driver config FILE KEY VALUE
 *     checkout-driver add PATH TREE BRANCH COMMIT
 *     checkout-driver remove PATH TREE
 */
#include "store/checkout.h"
#include "store/gitconfig.h"

#include <stdio.h>
#include <string.h>

typedef struct call {
    checkout *c; /* NULL: not opened */
    char **args; /* after the command and, if it was opened, the path */
} call;

static memfs_code oid_of(const char *hex, memfs_oid *ret, memfs_error *err)
{
    if (!oid_parse(str_of(hex), ret))
        return memfs_fail(err, MEMFS_EINVALID, "'%s' is no id", hex);
    return MEMFS_OK;
}

static memfs_code do_create(const call *k, memfs_error *err)
{
    return checkout_create(k->args[0], false, err);
}

static memfs_code do_bare(const call *k, memfs_error *err)
{
    return checkout_create(k->args[0], true, err);
}

static memfs_code do_update(const call *k, memfs_error *err)
{
    checkout_update_report report;
    memfs_oid from, to;
    memfs_code rc = oid_of(k->args[0], &from, err);

    if (rc == MEMFS_OK)
        rc = oid_of(k->args[1], &to, err);
    return rc == MEMFS_OK ? checkout_update(k->c, &from, &to, "memfs: sync", &report, err) : rc;
}

static memfs_code do_recover(const call *k, memfs_error *err)
{
    bool did = false;
    memfs_code rc = checkout_recover(k->c, &did, err);

    if (rc == MEMFS_OK)
        printf("%s", did ? "did " : "");
    return rc;
}

static memfs_code do_inspect(const call *k, memfs_error *err)
{
    checkout_state s;
    memfs_code rc = checkout_inspect(k->c, &s, err);

    if (rc == MEMFS_OK)
        printf("%zu changed %zu untracked ", s.n_changed, s.n_untracked);
    return rc;
}

static memfs_code do_commit(const call *k, memfs_error *err)
{
    const store_identity who = { "driver", "driver@localhost", 1700000000 };
    const policy p = POLICY_INIT;
    memfs_oid id;

    return checkout_commit_all(k->c, &p, &who, k->args[0], NULL, NULL, &id, err);
}

static memfs_code do_move(const call *k, memfs_error *err)
{
    memfs_oid old, target;
    memfs_code rc = oid_of(k->args[1], &old, err);

    if (rc == MEMFS_OK)
        rc = oid_of(k->args[2], &target, err);
    return rc == MEMFS_OK ? checkout_ref_move(k->c, k->args[0], &old, &target, "move", err) : rc;
}

static memfs_code do_config(const call *k, memfs_error *err)
{
    gitconfig_change change = { k->args[1], k->args[2] };

    return gitconfig_apply(k->args[0], &change, 1, err);
}

static memfs_code do_add(const call *k, memfs_error *err)
{
    memfs_oid commit;
    memfs_code rc = oid_of(k->args[2], &commit, err);

    return rc == MEMFS_OK ? checkout_worktree_add(k->c, k->args[0], k->args[1], &commit, err) : rc;
}

static memfs_code do_remove(const call *k, memfs_error *err)
{
    return checkout_worktree_remove(k->c, k->args[0], false, err);
}

static const struct command {
    const char *name;
    int n_args;
    bool is_opened;
    memfs_code (*run)(const call *k, memfs_error *err);
} commands[] = {
    { "create", 1, false, do_create },  { "bare", 1, false, do_bare },
    { "config", 3, false, do_config },  { "update", 2, true, do_update },
    { "recover", 0, true, do_recover }, { "inspect", 0, true, do_inspect },
    { "commit", 1, true, do_commit },   { "move", 3, true, do_move },
    { "add", 3, true, do_add },         { "remove", 1, true, do_remove },
};

static memfs_code run(const struct command *command, char **args, memfs_error *err)
{
    call k = { NULL, args };
    memfs_code rc = MEMFS_OK;

    if (command->is_opened) {
        rc = checkout_open(args[0], &k.c, err);
        k.args++;
    }
    if (rc == MEMFS_OK)
        rc = command->run(&k, err);
    checkout_close(k.c);
    return rc;
}

int main(int argc, char **argv)
{
    memfs_error err = MEMFS_ERROR_INIT;

    for (size_t i = 0; argc > 1 && i < ARRAY_LEN(commands); i++) {
        const struct command *command = &commands[i];
        memfs_code rc;

        if (strcmp(argv[1], command->name) != 0 || argc != 2 + command->n_args + command->is_opened)
            continue;
        rc = run(command, argv + 2, &err);
        printf("%s %s\n", rc == MEMFS_OK ? "OK" : memfs_code_name(rc),
               rc == MEMFS_OK ? "" : err.msg);
        return rc == MEMFS_OK ? 0 : 1;
    }
    fprintf(stderr, "checkout-driver: see the head of checkout_driver.c\n");
    return 2;
}
