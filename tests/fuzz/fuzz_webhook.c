/*
 * T22: any delivery.  Input: header lines "Name: value", an empty line, the body.
 *
 * Checked: nothing that was not made with a secret is proven, the texts of a proof are printable, a
 * hint's are bounded and have no NUL in them, and a change has a branch.  The first line may be
 * "gitea", "forgejo", "github" or "gitlab": the kind of the route.  A body is also read as if it had
 * been proven, by every kind.
 */
#include "fuzz.h"

#include "base/mem.h"
#include "remote/webhook.h"

#include <string.h>
#include <strings.h>

#define MAX_HEADERS 16

typedef struct heads {
    char *name[MAX_HEADERS], *value[MAX_HEADERS];
    size_t n;
} heads;

static const char *find(const char *name, void *ctx)
{
    const heads *h = ctx;

    for (size_t i = 0; i < h->n; i++)
        if (strcasecmp(h->name[i], name) == 0)
            return h->value[i];
    return NULL;
}

static void split_heads(memfs_str *rest, heads *h, host_kind *kind)
{
    memfs_str line, name, value;

    while (str_split(*rest, '\n', &line, rest) && line.len > 0) {
        if (!str_split(line, ':', &name, &value)) {
            host_kind_parse(line, kind);
            continue;
        }
        if (h->n == MAX_HEADERS || memchr(line.ptr, '\0', line.len) != NULL)
            continue;
        while (value.len > 0 && value.ptr[0] == ' ')
            value = str_from(value, 1);
        h->name[h->n] = mem_strndup(name.ptr, name.len);
        h->value[h->n++] = mem_strndup(value.ptr, value.len);
    }
}

static void check_hint(const webhook_delivery *d, host_kind kind, const char *event)
{
    webhook_proof proof = { .kind = kind };
    webhook_hint hint;
    memfs_error err;

    snprintf(proof.event, sizeof(proof.event), "%s", event);
    if (webhook_read(d, &proof, &hint, &err) < 0) {
        FUZZ_CHECK(!hint.is_change && hint.ref[0] == '\0');
        return;
    }
    FUZZ_CHECK(memchr(hint.ref, '\0', sizeof(hint.ref)) != NULL);
    for (size_t i = 0; i < 3; i++)
        FUZZ_CHECK(memchr(hint.addresses[i], '\0', sizeof(hint.addresses[i])) != NULL);
    if (hint.is_change)
        FUZZ_CHECK(strncmp(hint.ref, "refs/heads/", 11) == 0 && hint.ref[11] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    /* what nobody has who writes the input: a proof is a forgery */
    const memfs_str secrets[] = { MEMFS_STR("nobody-knows-f0a1"), MEMFS_STR(""),
                                  MEMFS_STR("whsec_bm9ib2R5LWtub3dzLWYwYTE=") };
    char *text = mem_strndup((const char *)bytes, n);
    memfs_str rest = str_make(text, n);
    heads h = { .n = 0 };
    webhook_delivery d = { HOST_UNKNOWN, find, &h, MEMFS_STR("") };
    webhook_proof proof;
    memfs_error err;

    split_heads(&rest, &h, &d.kind);
    d.body = rest;
    if (memmem(bytes, n, "nobody-knows", 12) == NULL)
        FUZZ_CHECK(webhook_prove(&d, secrets, 3, 1790000000, &proof, &err) < 0);
    check_hint(&d, HOST_GITHUB, "push");
    check_hint(&d, HOST_GITEA, "delete");
    check_hint(&d, HOST_GITLAB, "Push Hook");
    for (size_t i = 0; i < h.n; i++) {
        free(h.name[i]);
        free(h.value[i]);
    }
    free(text);
    return 0;
}
