/*
 * Tree policy on any bytes.  The input is a byte of flags, the length of the known tree (two bytes),
 * the known tree, and the tree under judgement, both raw.
 *
 * Beyond not crashing:
 *   - reading moves forward, never past the end, and a tree is read the same way twice
 *   - a refusal is one line of valid UTF-8 without control characters, whatever the name was
 *   - what the strict policy accepts, the lenient one accepts too
 *   - a tree is never refused for twins that it had before
 */
#include "fuzz.h"

#include "base/escape.h"
#include "base/mem.h"
#include "memory/policy.h"

static void check_refusal(const memfs_error *err)
{
    memfs_str text = str_of(err->msg);
    size_t pos = 0;
    uint32_t cp;

    FUZZ_CHECK(err->code == MEMFS_EDENIED && text.len > 0 && text.len < sizeof(err->msg) - 1);
    while (pos < text.len) {
        FUZZ_CHECK(str_utf8_next(text, &pos, &cp));
        FUZZ_CHECK(!escape_is_control(cp));
    }
}

static void judge_entries(memfs_str raw, memfs_str folder)
{
    policy strict = POLICY_INIT, lenient = POLICY_INIT;
    size_t pos = 0, before = 0;
    tree_entry e;
    bool bad;

    lenient.lenient = true;
    while (tree_next(raw, &pos, &e, &bad)) {
        memfs_error err = MEMFS_ERROR_INIT;

        FUZZ_CHECK(!bad && pos > before && pos <= raw.len && e.name.len > 0);
        FUZZ_CHECK(memchr(e.name.ptr, '\0', e.name.len) == NULL);
        before = pos;
        if (policy_entry(&strict, folder, &e, &err) != MEMFS_OK)
            check_refusal(&err);
        else
            FUZZ_CHECK(policy_entry(&lenient, folder, &e, &err) == MEMFS_OK);
    }
    FUZZ_CHECK(pos == before && bad == (pos != raw.len));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    _cleanup_(mem_freep) char *known_copy = NULL, *raw_copy = NULL;
    policy p = POLICY_INIT;
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_str known, raw;
    size_t cut;

    if (n < 3)
        return 0;
    p.lenient = bytes[0] & 1;
    cut = (size_t)(bytes[1] << 8 | bytes[2]);
    if (cut > n - 3)
        cut = n - 3;
    known_copy = mem_realloc(NULL, cut, 1);
    memcpy(known_copy, bytes + 3, cut);
    known = str_make(known_copy, cut);
    raw_copy = mem_realloc(NULL, n - 3 - cut, 1);
    memcpy(raw_copy, bytes + 3 + cut, n - 3 - cut);
    raw = str_make(raw_copy, n - 3 - cut);

    judge_entries(raw, MEMFS_STR(""));
    judge_entries(raw, known); /* any bytes as the folder's path */
    if (policy_siblings(&p, MEMFS_STR("folder/"), raw, known, &err) != MEMFS_OK)
        check_refusal(&err);
    FUZZ_CHECK(policy_siblings(&p, MEMFS_STR(""), raw, raw, &err) == MEMFS_OK);
    return 0;
}
