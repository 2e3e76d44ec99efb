#include "hook/credential.h"
#include "hook/hook.h"

#include "base/program.h"

/* Which program this is: the essay is in hook.h. */

typedef struct hook_row {
    const char *name;
    int (*run)(const char *name, char **argv);
} hook_row;

static int reference_transaction(const char *name, char **argv)
{
    (void)name;
    return hook_reference_transaction(argv);
}

/* Every other name is a hook that memfs has nothing to say about. */
static const hook_row HOOKS[] = {
    { "reference-transaction", reference_transaction },
    { "pre-commit", hook_ours },
    { "post-commit", hook_ours },
};

static int run_hook(const char *name, char **argv)
{
    for (size_t i = 0; i < ARRAY_LEN(HOOKS); i++)
        if (strcmp(name, HOOKS[i].name) == 0)
            return HOOKS[i].run(name, argv);
    return hook_chained(name, argv);
}

/* The name becomes part of a path. */
static bool is_hook_name(const char *name)
{
    return name[0] != '\0' && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(name);
}

static const char *base_name(const char *path)
{
    const char *slash = path != NULL ? strrchr(path, '/') : NULL;

    return slash != NULL ? slash + 1 : path != NULL ? path : "";
}

int main(int argc, char **argv)
{
    const char *name = argc > 0 ? base_name(argv[0]) : "";

    if (strcmp(name, PROGRAM_REMOTE_HELPER) == 0)
        return remote_helper(argc, argv);
    if (strcmp(name, PROGRAM_HOOK) == 0) {
        if (argc > 1 && strcmp(argv[1], "credential") == 0)
            return hook_credential(argc - 1, argv + 1);
        name = argc > 1 ? argv[1] : "";
        argv++;
    }
    if (!is_hook_name(name)) {
        hook_say("memfs-hook is called by git: see 'memfs help setup'");
        return 2;
    }
    return run_hook(name, argv);
}
