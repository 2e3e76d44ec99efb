/*
 * memfs-hook - what git starts all the time: hooks, the credential door, and (as git-remote-memfs) the
 * remote helper.  Static, with nothing but base, so that it starts in half a millisecond.
 */
#include "base/str.h"

int main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return 1;
}
