#include "base/program.h"

#include "base/fs.h"
#include "base/mem.h"

#include <stdlib.h>
#include <unistd.h>

/* Where to look, from the folder of the program that runs: beside it, then as installed. */
static const char *const PLACES[] = { "", "../libexec/memfs/", "../../bin/" };

static char *own_folder(void)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
    char *end;

    if (n <= 0)
        return NULL;
    path[n] = '\0';
    end = strrchr(path, '/');
    return end != NULL ? mem_strndup(path, (size_t)(end - path)) : NULL;
}

memfs_code program_path(const char *name, char **ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *folder = own_folder();

    if (folder == NULL)
        return memfs_fail(err, MEMFS_EINTERNAL, "could not find out where memfs is installed");
    for (size_t i = 0; i < ARRAY_LEN(PLACES); i++) {
        _cleanup_(mem_freep) char *candidate = mem_printf("%s/%s%s", folder, PLACES[i], name);
        char *real = access(candidate, X_OK) == 0 ? realpath(candidate, NULL) : NULL;

        if (real != NULL) {
            *ret = real;
            return MEMFS_OK;
        }
    }
    return memfs_fail(err, MEMFS_ENOTFOUND, "'%s' is neither in '%s' nor in its libexec folder: "
                      "the installation is not whole", name, folder);
}
