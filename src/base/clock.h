/*
 * clock.h - two clocks, kept apart.
 *
 * Timeouts and waits use the monotonic clock; the wall clock only dates things for people and never
 * orders commits (reliability H7, F25).
 */
#ifndef MEMFS_BASE_CLOCK_H
#define MEMFS_BASE_CLOCK_H

#include "base/macros.h"

#include <pthread.h>
#include <time.h>

int64_t clock_mono_ms(void);
int64_t clock_mono_us(void);
int64_t clock_wall_us(void); /* since 1970, UTC */

/* ISO 8601 with Z, microseconds only when they are not zero (http-api 1.1). */
#define CLOCK_ISO_LEN 40
void clock_iso(int64_t wall_us, char out[CLOCK_ISO_LEN]);
/* What clock_iso wrote, of the years 1970 to 2100; false: anything else. */
bool clock_of_iso(const char *text, int64_t *ret_us);

void clock_sleep_ms(int64_t ms);

/* A condition whose timed waits go by the monotonic clock, and an instant of it as they want it. */
void clock_cond_init(pthread_cond_t *ret);
struct timespec clock_at(int64_t mono_ms);

#endif
