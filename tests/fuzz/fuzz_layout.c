/*
 * A tree of files for the rules of the second layout: parts between 0x01 bytes, each a path, a
 * newline and the text.  The first byte chooses the policy; a path that begins with '@' is a
 * symbolic link.
 *
 * Beyond not crashing: each violation is told, in one line of UTF-8, and the limits stay in bounds.
 */
#include "fuzz.h"

#include "memory/layout.h"
#include "memory/tokens.h"

#include <string.h>

#define MAX_FILES 64

static int by_path(const void *a, const void *b)
{
    return str_compare(((const layout_file *)a)->path, ((const layout_file *)b)->path);
}

static void count(memfs_str path, const char *what, void *ctx)
{
    memfs_str said = str_of(what);

    (void)path;
    ++*(size_t *)ctx;
    FUZZ_CHECK(said.len > 0 && memchr(what, '\n', said.len) == NULL);
    FUZZ_CHECK(str_utf8_valid_prefix(said) == said.len);
}

static layout_file file_of(memfs_str part)
{
    layout_file file = { .mode = 0100644 };

    if (!str_split(part, '\n', &file.path, &file.text))
        file.path = part;
    if (str_starts_with(file.path, MEMFS_STR("@"))) {
        file.path = str_from(file.path, 1);
        file.mode = 0120000;
    }
    return file;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    layout_limits limits = LAYOUT_LIMITS_INIT;
    layout_file files[MAX_FILES];
    size_t n_files = 0, n_said = 0, n_found;
    memfs_str rest, part;
    char *exact;

    if (n == 0 || n > 20000)
        return 0;
    exact = malloc(n);
    FUZZ_CHECK(exact != NULL);
    memcpy(exact, bytes, n);
    rest = str_make(exact + 1, n - 1);
    while (n_files < MAX_FILES && str_split(rest, 1, &part, &rest))
        files[n_files++] = file_of(part);
    if (n_files < MAX_FILES)
        files[n_files++] = file_of(rest);
    qsort(files, n_files, sizeof(files[0]), by_path);
    for (size_t i = 0; i < n_files; i++) {
        layout_limits_of(files[i].text, &limits);
        FUZZ_CHECK(limits.max_file_chars > 0 && limits.max_root_chars > 0);
        FUZZ_CHECK(chars_of(files[i].text) <= files[i].text.len);
        FUZZ_CHECK(tokens_of(files[i].text) <= (3 * files[i].text.len + 3) / 4);
    }
    layout_policy_of(rest, true);
    n_found = layout_check((layout_policy)(bytes[0] % 3), &limits, files, n_files, count, &n_said);
    FUZZ_CHECK(n_found == n_said);
    free(exact);
    return 0;
}
