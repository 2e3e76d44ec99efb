/*
 * httpc_int.h - libcurl as it was loaded, shared by the httpc*.c files only.
 *
 * A table of the functions that are used, filled once.  The types come from curl's header, so that
 * a wrong call does not compile; the macros of that header that check options are passed by.
 */
#ifndef MEMFS_BASE_HTTPC_INT_H
#define MEMFS_BASE_HTTPC_INT_H

#include "base/httpc.h"

#include <curl/curl.h>

#define CURL_FUNCTIONS(X)                                                                          \
    X(global_init)                                                                                 \
    X(easy_init) X(easy_cleanup) X(easy_setopt) X(easy_perform) X(easy_getinfo) X(easy_strerror)   \
        X(easy_pause) X(slist_append) X(slist_free_all) X(getdate) X(multi_init) X(multi_cleanup)  \
            X(multi_add_handle) X(multi_remove_handle) X(multi_perform) X(multi_info_read)         \
                X(multi_poll) X(multi_wakeup) X(multi_setopt)

typedef struct curl_library {
#define FIELD(name) __typeof__(curl_##name) *name; /* NOLINT(bugprone-macro-parentheses) */
    CURL_FUNCTIONS(FIELD)
#undef FIELD
} curl_library;

/* NULL: it is not installed.  Any thread. */
const curl_library *httpc_library(void);
#define HTTPC_NO_LIBRARY_TEXT "libcurl is not installed (libcurl.so.4; Debian: libcurl4)"

/* A field's value, or a line, without the blanks and line ends around it. */
memfs_str httpc_trim(memfs_str s);

/* What is true of each request: see httpc.h. */
void httpc_set_safety(const curl_library *lib, CURL *curl, const char *ca_file);
httpc_failure httpc_failure_of(CURLcode rc, bool was_stopped);
/* said: what curl wrote into CURLOPT_ERRORBUFFER. */
void httpc_tell_failure(const curl_library *lib, CURL *curl, CURLcode rc, const char *said,
                        httpc_answer *ret);

#endif
