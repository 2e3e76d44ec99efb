/*
 * redact.h - foreign text without the secrets in it (reliability T24, S3).
 *
 * By value: every occurrence of a secret that the caller names.  By pattern: user info of URLs,
 * what follows "Authorization:", "Basic" and "Bearer", values of query parameters that carry
 * tokens, and tokens with a prefix that is known (ghp_, glpat-, sk-let-, ...).  Each becomes
 * "<redacted>".  Rather too much than too little.
 *
 * Thread: any; pure.
 */
#ifndef MEMFS_BASE_REDACT_H
#define MEMFS_BASE_REDACT_H

#include "base/buf.h"

#define REDACTED "<redacted>"

/* secrets: NULL entries and those shorter than 4 bytes are passed over (they would hit
 * everywhere). */
void redact_add(memfs_buf *out, memfs_str text, const char *const *secrets, size_t n_secrets);

#endif
