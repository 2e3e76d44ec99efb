#include "server/peers.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PEERS 64
#define V4_BITS 96 /* of an IPv4 address that is mapped, those before it */

typedef struct network {
    struct in6_addr address;
    unsigned n_bits;
} network;

struct peers {
    size_t n;
    network at[MAX_PEERS];
};

/* *ret_before: how many bits stand before what a mask of it counts. */
static bool parse_address(const char *text, struct in6_addr *ret, unsigned *ret_before)
{
    struct in_addr v4;

    *ret_before = 0;
    if (inet_pton(AF_INET6, text, ret) == 1)
        return true;
    if (inet_pton(AF_INET, text, &v4) != 1)
        return false;
    *ret_before = V4_BITS;
    memset(ret, 0, sizeof(*ret));
    ret->s6_addr[10] = ret->s6_addr[11] = 0xFF;
    memcpy(ret->s6_addr + 12, &v4, sizeof(v4));
    return true;
}

static bool parse_network(memfs_str word, network *ret)
{
    char text[64];
    uint64_t bits = 0;
    unsigned before;
    char *slash;

    if (word.len == 0 || word.len >= sizeof(text))
        return false;
    snprintf(text, sizeof(text), "%.*s", (int)word.len, word.ptr);
    slash = strchr(text, '/');
    if (slash != NULL)
        *slash = '\0';
    if (!parse_address(text, &ret->address, &before))
        return false;
    if (slash != NULL && !str_to_u64(str_of(slash + 1), 128 - before, &bits))
        return false;
    ret->n_bits = slash != NULL ? before + (unsigned)bits : 128;
    return true;
}

memfs_code peers_parse(const char *text, peers **ret, memfs_error *err)
{
    peers *p = mem_alloc(sizeof(*p));
    memfs_str rest = str_of(text), word;

    for (bool goes_on = rest.len > 0; goes_on;) {
        goes_on = str_split(rest, ',', &word, &rest);
        if (!goes_on)
            word = rest;
        if (p->n == MAX_PEERS || !parse_network(word, &p->at[p->n])) {
            free(p);
            return memfs_fail(err, MEMFS_EINVALID,
                              "'%.*s' is no address: 10.1.2.3 or 172.16.0.0/12, at most %d of "
                              "them, with commas between", (int)(word.len < 60 ? word.len : 60), word.ptr,
                              MAX_PEERS);
        }
        p->n++;
    }
    if (p->n == 0) {
        free(p);
        return memfs_fail(err, MEMFS_EINVALID, "an address is needed: 10.1.2.3 or 172.16.0.0/12");
    }
    *ret = p;
    return MEMFS_OK;
}

void peers_free(peers *p)
{
    free(p);
}

static bool is_in(const network *n, const struct in6_addr *address)
{
    unsigned whole = n->n_bits / 8, rest = n->n_bits % 8;
    uint8_t mask = (uint8_t)(0xFF << (8 - rest));

    if (memcmp(n->address.s6_addr, address->s6_addr, whole) != 0)
        return false;
    return rest == 0 ||
           (n->address.s6_addr[whole] & mask) == (address->s6_addr[whole] & mask);
}

bool peers_have(const peers *p, const char *address)
{
    struct in6_addr parsed;
    unsigned before;

    if (!parse_address(address, &parsed, &before))
        return false;
    for (size_t i = 0; i < p->n; i++)
        if (is_in(&p->at[i], &parsed))
            return true;
    return false;
}
