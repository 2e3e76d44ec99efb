/*
 * asleep.h - is another thread of this process waiting?  Asleep in thirty looks on end: it waits for
 * the lock that the test holds, as there is nothing else to wait for.
 */
#ifndef MEMFS_TEST_ASLEEP_H
#define MEMFS_TEST_ASLEEP_H

#include "base/clock.h"
#include "base/fs.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static inline bool is_asleep(int tid)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
    char path[64];
    memfs_error err;

    snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
    return fs_read(path, &text, &err) == MEMFS_OK && strstr(text.ptr, ") S ") != NULL;
}

/* tid: of the thread, 0 until it runs. */
static inline void wait_until_asleep(const atomic_int *tid)
{
    int n_asleep = 0;

    while (n_asleep < 30) {
        int id = atomic_load(tid);

        n_asleep = id != 0 && is_asleep(id) ? n_asleep + 1 : 0;
        clock_sleep_ms(1);
    }
}

#endif
