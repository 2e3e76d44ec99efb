#include "mirror/rarely.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"

#include <string.h>

/*
 * A table with one place for each digest; two troubles that share a place push each other out, and
 * are told more often.  That is less than a field in each of a hundred thousand pairs for what
 * hardly ever happens.
 */

#define TELL_MS 60000
#define N_PLACES 4096

static struct {
    uint64_t digest;
    int64_t told_ms;
} places[N_PLACES];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards places; innermost */

static uint64_t digest_of(const exchange *x, const char *event, const char *what)
{
    _cleanup_(mem_freep) char *key = mem_printf("%p %s %s %s %s", (void *)x->m, event, x->agent_id,
                                                x->config->name, what);
    uint8_t sha[HASH_SHA256];
    uint64_t digest;

    hash_sha256(str_of(key), sha);
    memcpy(&digest, sha, sizeof(digest));
    return digest;
}

static bool is_worth_telling(uint64_t digest)
{
    int64_t now_ms = clock_mono_ms();
    size_t at = digest % N_PLACES;
    bool is;

    pthread_mutex_lock(&mutex);
    is = places[at].digest != digest || now_ms - places[at].told_ms >= TELL_MS;
    if (is) {
        places[at].digest = digest;
        places[at].told_ms = now_ms;
    }
    pthread_mutex_unlock(&mutex);
    return is;
}

void mirror_event_rarely(const exchange *x, const char *event, const char *what,
                         const char *detail)
{
    _cleanup_(mem_freep) char *text = NULL;

    if (!is_worth_telling(digest_of(x, event, what)))
        return;
    text = mem_printf("%s%s%s", what, what[0] != '\0' ? ": " : "", detail);
    mirror_event(x->m, event, x->agent_id, x->config->name, text);
}
