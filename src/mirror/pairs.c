#include "mirror/pairs.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * The table is a hash table by agent id alone, so an agent's pairs lie in one bucket; the heap is
 * the usual binary one, of pointers, with each pair knowing its index.
 */

#define N_BUCKETS_FIRST 64

/* ---- lists ---- */

static void list_add(pair_list *l, pair *p)
{
    p->before = l->last;
    p->after = NULL;
    if (l->last != NULL)
        l->last->after = p;
    else
        l->first = p;
    l->last = p;
}

static void list_add_before(pair_list *l, pair *at, pair *p)
{
    if (at == NULL) {
        list_add(l, p);
        return;
    }
    p->before = at->before;
    p->after = at;
    if (at->before != NULL)
        at->before->after = p;
    else
        l->first = p;
    at->before = p;
}

static void list_remove(pair_list *l, pair *p)
{
    if (p->before != NULL)
        p->before->after = p->after;
    else
        l->first = p->after;
    if (p->after != NULL)
        p->after->before = p->before;
    else
        l->last = p->before;
    p->before = p->after = NULL;
}

/* ---- heap ---- */

static void heap_put(mirror *m, size_t at, pair *p)
{
    m->heap[at] = p;
    p->heap_at = (uint32_t)at;
}

static void heap_up(mirror *m, size_t at)
{
    pair *p = m->heap[at];

    for (; at > 0 && m->heap[(at - 1) / 2]->due_ms > p->due_ms; at = (at - 1) / 2)
        heap_put(m, at, m->heap[(at - 1) / 2]);
    heap_put(m, at, p);
}

static void heap_down(mirror *m, size_t at)
{
    pair *p = m->heap[at];
    size_t child;

    while ((child = 2 * at + 1) < m->n_heap) {
        if (child + 1 < m->n_heap && m->heap[child + 1]->due_ms < m->heap[child]->due_ms)
            child++;
        if (m->heap[child]->due_ms >= p->due_ms)
            break;
        heap_put(m, at, m->heap[child]);
        at = child;
    }
    heap_put(m, at, p);
}

static void heap_add(mirror *m, pair *p)
{
    if (m->n_heap == m->cap_heap) {
        m->cap_heap = m->cap_heap > 0 ? 2 * m->cap_heap : 64;
        m->heap = mem_realloc(m->heap, m->cap_heap, sizeof(*m->heap));
    }
    heap_put(m, m->n_heap++, p);
    heap_up(m, p->heap_at);
}

static void heap_remove(mirror *m, pair *p)
{
    size_t at = p->heap_at;
    pair *last = m->heap[--m->n_heap];

    if (last == p)
        return;
    heap_put(m, at, last);
    heap_up(m, at);
    heap_down(m, last->heap_at);
}

pair *pairs_first_due(mirror *m)
{
    return m->n_heap > 0 ? m->heap[0] : NULL;
}

/* ---- places ---- */

static void leave_place(mirror *m, pair *p)
{
    lane *l = &m->lanes[p->lane];

    if (p->place == IN_HEAP)
        heap_remove(m, p);
    else if (p->place == IN_QUEUE)
        list_remove(p->is_prompt ? &l->prompt : &l->polls, p);
    else if (p->place == IS_PARKED)
        list_remove(&l->parked, p);
}

void pair_to_heap(mirror *m, pair *p, int64_t due_ms)
{
    leave_place(m, p);
    p->place = IN_HEAP;
    p->due_ms = due_ms;
    heap_add(m, p);
    if (m->heap[0] == p)
        pthread_cond_signal(&m->time);
}

void pair_to_queue(mirror *m, pair *p, bool is_prompt)
{
    lane *l = &m->lanes[p->lane];

    leave_place(m, p);
    p->place = IN_QUEUE;
    p->is_prompt = is_prompt;
    list_add(is_prompt ? &l->prompt : &l->polls, p);
    pthread_cond_signal(&m->work);
}

/* Those that somebody waits for are among themselves as they came. */
void pair_to_front(mirror *m, pair *p)
{
    pair_list *l = &m->lanes[p->lane].prompt;
    pair *at;

    leave_place(m, p);
    for (at = l->first; at != NULL && at->n_waiting > 0;)
        at = at->after;
    p->place = IN_QUEUE;
    p->is_prompt = true;
    list_add_before(l, at, p);
    pthread_cond_signal(&m->work);
}

void pair_park(mirror *m, pair *p)
{
    leave_place(m, p);
    p->place = IS_PARKED;
    list_add(&m->lanes[p->lane].parked, p);
}

void pair_pick(mirror *m, pair *p)
{
    leave_place(m, p);
    p->place = IS_HELD;
}

/* ---- table ---- */

uint64_t pair_hash(const mirror *m, memfs_str id)
{
    uint64_t x = m->seed;

    for (size_t i = 0; i < id.len; i++) {
        x = (x ^ (uint8_t)id.ptr[i]) * 0x9e3779b97f4a7c15u;
        x ^= x >> 29;
    }
    return x;
}

static size_t bucket_of(const mirror *m, memfs_str id, size_t n)
{
    return (size_t)(pair_hash(m, id) & (n - 1));
}

pair *pair_find(mirror *m, memfs_str id, size_t lane_at)
{
    pair *p = m->buckets[bucket_of(m, id, m->n_buckets)];

    while (p != NULL && !(p->lane == lane_at && str_equal(str_of(p->id), id)))
        p = p->next;
    return p;
}

static void grow(mirror *m)
{
    size_t n = m->n_buckets * 2, at;
    pair **buckets = mem_alloc(n * sizeof(*buckets)), *p, *next;

    for (size_t i = 0; i < m->n_buckets; i++) {
        for (p = m->buckets[i]; p != NULL; p = next) {
            next = p->next;
            at = bucket_of(m, str_of(p->id), n);
            p->next = buckets[at];
            buckets[at] = p;
        }
    }
    free(m->buckets);
    m->buckets = buckets;
    m->n_buckets = n;
}

static pair *pair_new(mirror *m, memfs_str id, size_t lane_at)
{
    pair *p = mem_alloc(sizeof(*p) + id.len + 1);
    size_t at;

    if (m->n_pairs >= m->n_buckets)
        grow(m);
    memcpy(p->id, id.ptr, id.len);
    p->lane = (uint8_t)lane_at;
    p->place = IS_HELD;
    at = bucket_of(m, id, m->n_buckets);
    p->next = m->buckets[at];
    m->buckets[at] = p;
    m->n_pairs++;
    m->lanes[lane_at].n_pairs++;
    m->rooms[m->lanes[lane_at].room].n_pairs++;
    return p;
}

pair *pair_need(mirror *m, memfs_str id, size_t lane_at)
{
    pair *p = pair_find(m, id, lane_at);

    if (p != NULL)
        return p;
    p = pair_new(m, id, lane_at);
    p->changed_s = (uint32_t)(clock_mono_ms() / 1000);
    p->is_new = true;
    pair_to_heap(m, p, clock_mono_ms() + mirror_chance(schedule_interval_ms(m, p)));
    return p;
}

static void unlink_pair(mirror *m, pair *p)
{
    pair **at = &m->buckets[bucket_of(m, str_of(p->id), m->n_buckets)];

    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    m->n_pairs--;
}

static void pair_free(pair *p)
{
    free(p->last);
    free(p);
}

bool pair_drop_if_useless(mirror *m, pair *p)
{
    lane *l = &m->lanes[p->lane];

    if (p->n_waiting > 0 || !(p->is_gone || (p->is_fleeting && p->wants == 0)))
        return false;
    if (!p->is_gone) {
        leave_place(m, p);
        unlink_pair(m, p);
        l->n_pairs--;
        m->rooms[l->room].n_pairs--;
        if (l->scout == p) /* else nobody would ask */
            gate_open(m, l);
    } else if (p->place == IS_HELD) {
        return false; /* its holder frees it */
    }
    pair_free(p);
    return true;
}

/* ---- lanes and rooms ---- */

static char *room_name(const remote_config *c)
{
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    _cleanup_(mem_freep) char *text = NULL;
    memfs_error ignored;

    if (url_expand(c->url, "agent-00000000-0000-4000-8000-000000000000", &text, &ignored) < 0 ||
        url_parse(text, &url, &ignored) < 0 || url.kind == URL_PATH)
        return mem_strdup(c->name);
    return mem_printf("%s:%u", url.host, url.port);
}

static size_t need_room(mirror *m, const remote_config *c)
{
    char *name = room_name(c);

    for (size_t i = 0; i < m->n_rooms; i++) {
        if (strcmp(m->rooms[i].name, name) == 0) {
            free(name);
            return i;
        }
    }
    m->rooms[m->n_rooms] = (room){ .name = name };
    return m->n_rooms++;
}

static void drop_rooms(mirror *m)
{
    for (size_t i = 0; i < m->n_rooms; i++)
        free(m->rooms[i].name);
    m->n_rooms = 0;
}

int lane_find(const mirror *m, const char *remote)
{
    for (size_t i = 0; i < m->n_lanes; i++)
        if (strcmp(m->lanes[i].config->name, remote) == 0)
            return (int)i;
    return -1;
}

/* All pairs as one chain, out of table, heap and lists; only held ones still are in a place. */
static pair *take_all(mirror *m)
{
    pair *all = NULL, *p, *next;

    for (size_t i = 0; i < m->n_buckets; i++) {
        for (p = m->buckets[i]; p != NULL; p = next) {
            next = p->next;
            p->next = all;
            p->before = p->after = NULL;
            all = p;
        }
        m->buckets[i] = NULL;
    }
    m->n_heap = 0;
    m->n_pairs = 0;
    return all;
}

static void put_back(mirror *m, pair *p, size_t lane_at)
{
    size_t at = bucket_of(m, str_of(p->id), m->n_buckets);

    p->lane = (uint8_t)lane_at;
    p->next = m->buckets[at];
    m->buckets[at] = p;
    m->n_pairs++;
    m->lanes[lane_at].n_pairs++;
    m->rooms[m->lanes[lane_at].room].n_pairs++;
}

static void settle(mirror *m, pair *p, bool was_held)
{
    p->is_waiting = p->has_slot = false;
    if (was_held)
        return;
    p->place = IS_HELD;
    if (p->wants != 0)
        pair_to_queue(m, p, true);
    else
        pair_to_heap(m, p, clock_mono_ms() + mirror_chance(schedule_interval_ms(m, p)));
}

static void make_lanes(mirror *m)
{
    drop_rooms(m);
    memset(m->lanes, 0, sizeof(m->lanes));
    m->n_lanes = 0;
    m->next_lane = 0;
    m->generation++;
    strangers_forget_all(m);
    for (size_t i = 0; i < m->set->r->n; i++) {
        lane *l = &m->lanes[m->n_lanes++];

        l->config = &m->set->r->at[i];
        l->room = need_room(m, l->config);
    }
}

void pairs_use_set(mirror *m)
{
    char(*names)[40] = mem_alloc(REMOTES_MAX * sizeof(*names));
    pair *all, *p, *next, *kept = NULL;
    int at;

    for (size_t i = 0; i < m->n_lanes; i++)
        snprintf(names[i], sizeof(names[i]), "%s", m->lanes[i].config->name);
    all = take_all(m);
    make_lanes(m);
    for (p = all; p != NULL; p = next) {
        next = p->next;
        at = lane_find(m, names[p->lane]);
        if (at >= 0 && remote_is_for(m->lanes[at].config, p->id)) {
            p->lane = (uint8_t)at;
            p->next = kept;
            kept = p;
            continue;
        }
        p->is_gone = true;
        p->next = NULL;
        if (p->place != IS_HELD && p->n_waiting == 0)
            pair_free(p);
        else
            p->place = p->place == IS_HELD ? IS_HELD : IS_PARKED; /* whoever waits finds it gone */
    }
    for (p = kept; p != NULL; p = next) {
        next = p->next;
        at = p->lane;
        put_back(m, p, (size_t)at);
        settle(m, p, p->place == IS_HELD);
    }
    free(names);
}

/* ---- life cycle ---- */

void pairs_init(mirror *m)
{
    m->n_buckets = N_BUCKETS_FIRST;
    m->buckets = mem_alloc(m->n_buckets * sizeof(*m->buckets));
    hash_random((uint8_t *)&m->seed, sizeof(m->seed));
}

void pairs_dispose(mirror *m)
{
    pair *p, *next;

    for (p = take_all(m); p != NULL; p = next) {
        next = p->next;
        pair_free(p);
    }
    drop_rooms(m);
    free(m->buckets);
    free(m->heap);
}
