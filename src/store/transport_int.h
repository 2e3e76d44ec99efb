/*
 * transport_int.h - what transport.c and transport_said.c share.
 */
#ifndef MEMFS_STORE_TRANSPORT_INT_H
#define MEMFS_STORE_TRANSPORT_INT_H

#include "store/transport.h"

/*
 * Finds the telling line among everything a failed child wrote, and what it means; secrets are
 * those that must not be in it.  Pure.
 */
void transport_said(memfs_str written, const char *const *secrets, size_t n_secrets,
                    transport_report *ret);
/*
 * The lines of `git push --porcelain` (report) and what else it wrote: was main taken, and if
 * not, why.  False: nothing is said of main.  Pure.
 */
bool transport_read_push(memfs_str report, memfs_str written, const char *const *secrets,
                         size_t n_secrets, transport_report *ret);

#endif
