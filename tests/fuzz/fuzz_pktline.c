/*
 * T10, T17: any bytes as git's packets, as a push and as a v2 request.  What a push parser accepts
 * does not depend on the pieces it came in.
 */
#include "fuzz.h"

#include "server/git_wire.h"

#include <string.h>

static void check_packets(memfs_str in)
{
    memfs_str payload;

    for (;;) {
        memfs_str before = in;
        pkt_kind kind = pkt_next(&in, &payload);

        if (kind == PKT_SHORT || kind == PKT_BAD) {
            FUZZ_CHECK(in.ptr == before.ptr && in.len == before.len);
            return;
        }
        FUZZ_CHECK(in.len + 4 <= before.len);
        if (kind == PKT_DATA)
            FUZZ_CHECK(payload.len == before.len - in.len - 4 && payload.len <= PKT_MAX_PAYLOAD);
    }
}

static void check_report(const git_push_request *rq)
{
    const char *refusals[GIT_WIRE_MAX_COMMANDS] = { NULL };
    memfs_buf out = MEMFS_BUF_INIT(1 << 20);
    memfs_str rest, line;
    pkt_kind kind;

    for (size_t i = 0; i < rq->n_commands; i += 2)
        refusals[i] = "a\nreason";
    git_push_report(&out, rq, "", refusals);
    rest = buf_str(&out);
    while ((kind = pkt_next(&rest, &line)) == PKT_DATA)
        FUZZ_CHECK(line.len > 0 && memchr(line.ptr, '\n', line.len) == line.ptr + line.len - 1);
    FUZZ_CHECK(rest.len == 0 && (kind == PKT_FLUSH || out.len == 0));
    buf_dispose(&out);
}

static void check_push(memfs_str in)
{
    memfs_error err = MEMFS_ERROR_INIT;
    git_push_request whole, piece;
    size_t used, used_piece;

    if (git_push_parse(in, &whole, &used, &err) < 0 || used == 0)
        return;
    FUZZ_CHECK(used <= in.len && whole.n_commands <= GIT_WIRE_MAX_COMMANDS);
    for (size_t i = 0; i < whole.n_commands; i++)
        FUZZ_CHECK(whole.commands[i].ref.len > 0);
    FUZZ_CHECK(git_push_parse(str_make(in.ptr, used), &piece, &used_piece, &err) == MEMFS_OK);
    FUZZ_CHECK(used_piece == used && piece.n_commands == whole.n_commands);
    FUZZ_CHECK(git_push_parse(str_make(in.ptr, used - 1), &piece, &used_piece, &err) == MEMFS_OK);
    FUZZ_CHECK(used_piece == 0);
    check_report(&whole);
}

static void check_v2(memfs_str in)
{
    memfs_buf out = MEMFS_BUF_INIT(1 << 16);
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_oid tip = { { 1 } };
    git_v2_command command;
    git_ls_refs ls;

    if (git_v2_parse(in, &command, &ls, &err) == MEMFS_OK) {
        git_ls_refs_answer(&out, &ls, &tip);
        FUZZ_CHECK(str_ends_with(buf_str(&out), MEMFS_STR("0000")));
    }
    buf_dispose(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char *copy = malloc(n + 1);

    if (n > 0)
        memcpy(copy, bytes, n);
    copy[n] = '\0';
    FUZZ_CHECK(git_protocol_version(copy) <= 2);
    copy = realloc(copy, n > 0 ? n : 1);
    check_packets(str_make(copy, n));
    check_push(str_make(copy, n));
    check_v2(str_make(copy, n));
    free(copy);
    return 0;
}
