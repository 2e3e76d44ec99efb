/*
 * Three texts of any bytes: base, 0x01, one side, 0x01, the other.  Without a second 0x01 there is
 * no base.  What must hold of the merge is what its unit tests ask for.
 */
#include "fuzz.h"

#include "../unit/merge_support.h"
#include "memory/diff3.h"

#include <string.h>

/* A copy of exactly its size, so that a read past the end is seen. */
static memfs_str exact(memfs_str s)
{
    char *copy = malloc(s.len > 0 ? s.len : 1);

    FUZZ_CHECK(copy != NULL);
    if (s.len > 0)
        memcpy(copy, s.ptr, s.len);
    return str_make(copy, s.len);
}

static void check_split(memfs_str base, memfs_str a, memfs_str b)
{
    size_t n_base = 0, n_a = 0, n_b = 0;
    diff3 d = DIFF3_INIT;

    diff3_split(base, a, b, &d);
    for (size_t i = 0; i < d.n; i++) {
        n_base += d.parts[i].base.len;
        n_a += d.parts[i].a.len;
        n_b += d.parts[i].b.len;
    }
    FUZZ_CHECK(n_base == base.len && n_a == a.len && n_b == b.len);
    diff3_dispose(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    memfs_str rest = str_make((const char *)bytes, n), parts[3];
    const char *broken;
    size_t n_parts = 0;

    if (n == 0 || n > 20000)
        return 0;
    while (n_parts < 2 && str_split(rest, 1, &parts[n_parts], &rest))
        n_parts++;
    parts[n_parts++] = rest;
    if (n_parts < 2)
        return 0;
    for (size_t i = 0; i < n_parts; i++)
        parts[i] = exact(parts[i]);
    if (n_parts == 3) {
        check_split(parts[0], parts[1], parts[2]);
        broken = merge_broken_promise(&parts[0], parts[1], parts[2]);
    } else {
        broken = merge_broken_promise(NULL, parts[0], parts[1]);
    }
    if (broken != NULL)
        fprintf(stderr, "%s\n", broken);
    FUZZ_CHECK(broken == NULL);
    for (size_t i = 0; i < n_parts; i++)
        free((char *)parts[i].ptr);
    return 0;
}
