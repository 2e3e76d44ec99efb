/*
 * macros.h - the few language helpers that every room uses.
 *
 * _cleanup_(f) runs f(&variable) when the variable leaves scope, so that every early return is
 * correct.  TAKE_PTR hands a pointer over and leaves NULL behind.
 */
#ifndef MEMFS_BASE_MACROS_H
#define MEMFS_BASE_MACROS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define _cleanup_(f) __attribute__((cleanup(f)))
#define MEMFS_CHECK __attribute__((warn_unused_result))
#define MEMFS_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#define TAKE_PTR(p)                                                                                \
    ({                                                                                             \
        __typeof__(p) taken_ = (p);                                                                \
        (p) = NULL;                                                                                \
        taken_;                                                                                    \
    })

#endif
