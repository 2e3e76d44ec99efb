#include "store/readers.h"

#include "base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/*
 * Readers are numbered in the order in which they begin, and a retired pack keeps the last number
 * that was given by then; so no clock decides who came first.
 *
 * Whoever starts a child owns and reaps it, and need not tell us when.  The kernel knows: a child
 * leads a group of its own (base/process.h), whose id is not given to anyone else as long as a
 * process of it is left, be it a zombie or the pack-objects of an upload-pack that was killed.
 * When the id was given again after that, a stranger is taken for the child, and packs stay longer
 * than they need to: until they are old enough (care.c).
 */

typedef struct reader {
    struct reader *next;
    char *path;
    uint64_t number;
    pid_t group; /* 0: until readers_end */
} reader;

typedef struct retired {
    struct retired *next;
    char *path, *pack;
    uint64_t last; /* readers up to this number may want it */
} retired;

struct readers {
    pthread_mutex_t mutex;
    uint64_t last;
    reader *living;
    retired *packs;
};

/* life cycle */

readers *readers_new(void)
{
    readers *r = mem_alloc(sizeof(*r));

    pthread_mutex_init(&r->mutex, NULL);
    return r;
}

static void reader_unlink(reader **at)
{
    reader *gone = *at;

    *at = gone->next;
    free(gone->path);
    free(gone);
}

/* Returns the name of the pack. */
static char *retired_unlink(retired **at)
{
    retired *gone = *at;
    char *pack = gone->pack;

    *at = gone->next;
    free(gone->path);
    free(gone);
    return pack;
}

void readers_free(readers *r)
{
    if (r == NULL)
        return;
    while (r->living != NULL)
        reader_unlink(&r->living);
    while (r->packs != NULL)
        free(retired_unlink(&r->packs));
    pthread_mutex_destroy(&r->mutex);
    free(r);
}

/* readers */

uint64_t readers_begin(readers *r, const char *path)
{
    reader *new = mem_alloc(sizeof(*new));
    uint64_t number;

    new->path = mem_strdup(path);
    pthread_mutex_lock(&r->mutex);
    number = new->number = ++r->last;
    new->next = r->living;
    r->living = new;
    pthread_mutex_unlock(&r->mutex);
    return number;
}

/* Where the reader is; the end of the list when it is not there. */
static reader **find_reader(readers *r, uint64_t number)
{
    reader **at = &r->living;

    while (*at != NULL && (*at)->number != number)
        at = &(*at)->next;
    return at;
}

void readers_end(readers *r, uint64_t number)
{
    reader **at;

    pthread_mutex_lock(&r->mutex);
    at = find_reader(r, number);
    if (*at != NULL)
        reader_unlink(at);
    pthread_mutex_unlock(&r->mutex);
}

static void forget_dead_children(readers *r)
{
    reader **at = &r->living;

    while (*at != NULL) {
        if ((*at)->group != 0 && kill(-(*at)->group, 0) < 0 && errno == ESRCH)
            reader_unlink(at);
        else
            at = &(*at)->next;
    }
}

void readers_end_with(readers *r, uint64_t number, pid_t group)
{
    reader **at;

    pthread_mutex_lock(&r->mutex);
    forget_dead_children(r); /* so the list is as long as there are readers */
    at = find_reader(r, number);
    if (*at != NULL)
        (*at)->group = group;
    pthread_mutex_unlock(&r->mutex);
}

/* packs */

static retired **find_retired(readers *r, const char *path, const char *pack)
{
    retired **at = &r->packs;

    while (*at != NULL && (strcmp((*at)->pack, pack) != 0 || strcmp((*at)->path, path) != 0))
        at = &(*at)->next;
    return at;
}

void readers_retire(readers *r, const char *path, const char *pack)
{
    retired *new;

    pthread_mutex_lock(&r->mutex);
    new = *find_retired(r, path, pack); /* it may have come back with a push in between */
    if (new == NULL) {
        new = mem_alloc(sizeof(*new));
        new->path = mem_strdup(path);
        new->pack = mem_strdup(pack);
        new->next = r->packs;
        r->packs = new;
    }
    new->last = r->last;
    pthread_mutex_unlock(&r->mutex);
}

/* The number of the longest reader of this repository; UINT64_MAX: nobody reads it. */
static uint64_t first_reader(const readers *r, const char *path)
{
    uint64_t first = UINT64_MAX;

    for (const reader *at = r->living; at != NULL; at = at->next)
        if (at->number < first && strcmp(at->path, path) == 0)
            first = at->number;
    return first;
}

bool readers_release(readers *r, const char *path, char **ret_pack)
{
    retired **at;
    uint64_t first;
    bool found;

    pthread_mutex_lock(&r->mutex);
    forget_dead_children(r);
    first = first_reader(r, path);
    for (at = &r->packs; *at != NULL; at = &(*at)->next)
        if ((*at)->last < first && strcmp((*at)->path, path) == 0)
            break;
    found = *at != NULL;
    if (found)
        *ret_pack = retired_unlink(at);
    pthread_mutex_unlock(&r->mutex);
    return found;
}
