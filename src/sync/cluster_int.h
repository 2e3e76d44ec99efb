/*
 * cluster_int.h - the inside of cluster.h, shared by cluster.c and cluster_file.c only.
 */
#ifndef MEMFS_SYNC_CLUSTER_INT_H
#define MEMFS_SYNC_CLUSTER_INT_H

#include "base/error.h"

#define CLUSTER_SECRET_BYTES 32
#define CLUSTER_SECRET_LEN (2 * CLUSTER_SECRET_BYTES)

/*
 * This server's name, made at the first time and then kept in `server` beside its url; caller
 * frees, also after a failure.  ECORRUPT: the file is damaged, and the message says what to do.
 */
MEMFS_CHECK memfs_code cluster_keep_name(const char *home_path, const char *url, char **ret,
                                         memfs_error *err);
/* What it shows the others; ret has room for CLUSTER_SECRET_LEN + 1, and is to be wiped. */
MEMFS_CHECK memfs_code cluster_keep_secret(const char *home_path, char *ret, memfs_error *err);

#endif
