/*
 * webhook_int.h - what webhook.c (proof) and webhook_read.c (hint) share: the JSON text of a body.
 *
 * The text is the body itself, or the decoded value of its form field `payload`.  It is decoded as
 * it is read, so that a body of 26 MiB is in memory once.
 */
#ifndef MEMFS_REMOTE_WEBHOOK_INT_H
#define MEMFS_REMOTE_WEBHOOK_INT_H

#include "remote/webhook.h"

typedef struct webhook_text {
    memfs_str raw;
    size_t at;
    bool is_form;
    bool is_bad; /* a percent escape that is none: the text ends there */
} webhook_text;

bool webhook_is_form(const webhook_delivery *d);
/* False: the form has no such field. */
bool webhook_text_open(const webhook_delivery *d, webhook_text *ret);
/* The next byte; -1: the end. */
int webhook_text_next(webhook_text *t);

#endif
