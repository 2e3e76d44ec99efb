/*
 * doctor.h - what people meet, found and, where it is safe, mended.
 *
 * One row a check in doctor.c: name, what it looks at, what is said, whether it can be mended.
 * Mending never deletes content: what must go is moved to <git dir>/memfs/doctor/.
 */
#ifndef MEMFS_CLIENT_DOCTOR_H
#define MEMFS_CLIENT_DOCTOR_H

#include "client/places.h"

typedef enum finding_level {
    FINDING_OK,
    FINDING_NOTE,
    FINDING_WARNING,
    FINDING_PROBLEM
} finding_level;
typedef struct finding {
    const char *check; /* "stale-lock": stable */
    finding_level level;
    const char *agent_id; /* NULL: of the machine */
    const char *what;     /* one line, no secret */
    const char *advice;   /* what to do; "" */
    bool can_mend, was_mended;
} finding;
typedef void (*finding_fn)(const finding *f, void *ctx);

/* only: NULL, or one agent.  *ret_n_left: warnings and problems that remain. */
MEMFS_CHECK memfs_code doctor_run(const settings *s, const char *only, bool is_mending,
                                  finding_fn fn, void *ctx, size_t *ret_n_left, memfs_error *err);

#endif
