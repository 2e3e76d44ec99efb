/*
 * rarely.h - the same trouble is told once a minute at most (L5), where no pair keeps count of it.
 *
 * Any thread.
 */
#ifndef MEMFS_MIRROR_RARELY_H
#define MEMFS_MIRROR_RARELY_H

#include "mirror/mirror_int.h"

/* As mirror_event; "what: detail".  What makes it the same is everything but the detail. */
void mirror_event_rarely(const exchange *x, const char *event, const char *what,
                         const char *detail);

#endif
