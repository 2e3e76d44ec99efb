/*
 * nodirsync.c - the sabotage of test_D1_sabotage: fsync of a folder does nothing and says it did.
 *
 * Preloaded into the server under test.  If the power-cut test still passes with it, that test proves
 * nothing: the folder's fsync is what makes a renamed ref survive.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_folder(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

#define PASS_UNLESS_FOLDER(name)                                                                   \
    int name(int fd)                                                                               \
    {                                                                                              \
        static int (*real)(int);                                                                   \
                                                                                                   \
        if (is_folder(fd))                                                                         \
            return 0;                                                                              \
        if (!real)                                                                                 \
            real = (int (*)(int))dlsym(RTLD_NEXT, #name);                                          \
        return real(fd);                                                                           \
    }

PASS_UNLESS_FOLDER(fsync)
PASS_UNLESS_FOLDER(fdatasync)
PASS_UNLESS_FOLDER(syncfs)
