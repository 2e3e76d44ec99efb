#include "server/git_wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define A "1111111111111111111111111111111111111111"
#define B "2222222222222222222222222222222222222222"

static memfs_oid oid(const char *hex)
{
    memfs_oid id = { { 0 } };

    assert_true(oid_parse(str_of(hex), &id));
    return id;
}

/* ---- packets ---- */

typedef struct packet_case {
    const char *bytes;
    pkt_kind kind;
    const char *payload;
    size_t n_left;
} packet_case;

static void test_packets_are_read_one_by_one(void **state)
{
    static const packet_case cases[] = {
        { "0006a\nrest", PKT_DATA, "a\n", 4 },
        { "0004", PKT_DATA, "", 0 },
        { "000Ahello\n", PKT_DATA, "hello\n", 0 },
        { "0000x", PKT_FLUSH, NULL, 1 },
        { "0001", PKT_DELIM, NULL, 0 },
        { "0002", PKT_END, NULL, 0 },
        { "0003", PKT_BAD, NULL, 4 },
        { "", PKT_SHORT, NULL, 0 },
        { "000", PKT_SHORT, NULL, 3 },
        { "0006a", PKT_SHORT, NULL, 5 },
        { "fff0", PKT_SHORT, NULL, 4 },
        { "fff1", PKT_BAD, NULL, 4 },
        { "ffff", PKT_BAD, NULL, 4 },
        { "00g6ab", PKT_BAD, NULL, 6 },
        { "-001a", PKT_BAD, NULL, 5 },
        { " 006ab", PKT_BAD, NULL, 6 },
        { "0x06ab", PKT_BAD, NULL, 6 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        memfs_str in = str_of(cases[i].bytes), payload = { NULL, 0 };

        assert_int_equal(pkt_next(&in, &payload), cases[i].kind);
        assert_int_equal(in.len, cases[i].n_left);
        if (cases[i].payload != NULL)
            assert_true(str_equal(payload, str_of(cases[i].payload)));
    }
}

static void test_bands_are_cut_into_packets_of_the_largest_size(void **state)
{
    memfs_buf bytes = MEMFS_BUF_INIT(1 << 20), out = MEMFS_BUF_INIT(1 << 20);
    memfs_str rest, payload;
    size_t n = 0, n_packets = 0;

    (void)state;
    for (size_t i = 0; i < 200000; i++)
        buf_putc(&bytes, (char)i);
    pkt_band(&out, 2, buf_str(&bytes));
    rest = buf_str(&out);
    while (rest.len > 0) {
        assert_int_equal(pkt_next(&rest, &payload), PKT_DATA);
        assert_int_equal(payload.ptr[0], 2);
        assert_memory_equal(payload.ptr + 1, bytes.ptr + n, payload.len - 1);
        n += payload.len - 1;
        n_packets++;
    }
    assert_int_equal(n, bytes.len);
    assert_int_equal(n_packets, 4);
    buf_dispose(&bytes);
    buf_dispose(&out);
}

/* ---- versions and advertisements ---- */

static void test_T05_only_known_versions_count(void **state)
{
    static const struct {
        const char *header;
        int version;
    } cases[] = {
        { NULL, 0 },
        { "", 0 },
        { "version=0", 0 },
        { "version=1", 1 },
        { "version=2", 2 },
        { "version=1:version=2", 2 },
        { "version=2:version=1", 2 },
        { "a:version=2:b=c", 2 },
        { "version=3", 0 },
        { "version=22", 0 },
        { "version=2 -c", 0 },
        { "version=2;id", 0 },
        { "VERSION=2", 0 },
        { ":::", 0 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(git_protocol_version(cases[i].header), cases[i].version);
}

static void test_refs_are_advertised_as_git_does_it(void **state)
{
    memfs_buf out = MEMFS_BUF_INIT(4096);
    memfs_oid tip = oid(A);
    memfs_str rest, line;

    (void)state;
    git_advertise_refs(&out, GIT_UPLOAD_PACK, &tip);
    rest = buf_str(&out);
    assert_int_equal(pkt_next(&rest, &line), PKT_DATA);
    assert_true(str_equal(line, MEMFS_STR("# service=git-upload-pack\n")));
    assert_int_equal(pkt_next(&rest, &line), PKT_FLUSH);
    assert_int_equal(pkt_next(&rest, &line), PKT_DATA);
    assert_true(str_starts_with(line, MEMFS_STR(A " HEAD\0multi_ack ")));
    assert_non_null(memmem(line.ptr, line.len, " symref=HEAD:refs/heads/main ", 29));
    assert_int_equal(pkt_next(&rest, &line), PKT_DATA);
    assert_true(str_equal(line, MEMFS_STR(A " refs/heads/main\n")));
    assert_int_equal(pkt_next(&rest, &line), PKT_FLUSH);
    assert_int_equal(rest.len, 0);

    buf_clear(&out);
    git_advertise_refs(&out, GIT_RECEIVE_PACK, &tip);
    assert_non_null(memmem(out.ptr, out.len, A " refs/heads/main\0report-status ", 71));
    assert_null(memmem(out.ptr, out.len, "delete-refs", 11));
    assert_null(memmem(out.ptr, out.len, "push-options", 12));
    assert_null(memmem(out.ptr, out.len, " HEAD", 5));
    buf_dispose(&out);
}

/* ---- v2 ---- */

static memfs_code parse_v2(const char *const *lines, git_v2_command *command, git_ls_refs *ls)
{
    static memfs_buf body = MEMFS_BUF_INIT(1 << 20);
    memfs_error err = MEMFS_ERROR_INIT;

    buf_clear(&body);
    for (; *lines != NULL; lines++) {
        if (strcmp(*lines, "0001") == 0)
            buf_puts(&body, "0001");
        else
            pkt_printf(&body, "%s\n", *lines);
    }
    pkt_flush(&body);
    return git_v2_parse(buf_str(&body), command, ls, &err);
}

static void test_ls_refs_arguments(void **state)
{
    const char *lines[] = { "command=ls-refs",
                            "agent=git/2.39.5",
                            "object-format=sha1",
                            "0001",
                            "peel",
                            "symrefs",
                            "unborn",
                            "ref-prefix refs/heads/",
                            "ref-prefix refs/tags/",
                            "something-new",
                            NULL };
    memfs_buf out = MEMFS_BUF_INIT(4096);
    git_v2_command command;
    memfs_oid tip = oid(A);
    git_ls_refs ls;

    (void)state;
    assert_int_equal(parse_v2(lines, &command, &ls), MEMFS_OK);
    assert_int_equal(command, GIT_V2_LS_REFS);
    assert_true(ls.peel && ls.symrefs && ls.unborn);
    assert_int_equal(ls.n_prefixes, 2);
    git_ls_refs_answer(&out, &ls, &tip);
    assert_string_equal(out.ptr, "003d" A " refs/heads/main\n0000");
    buf_clear(&out);
    ls.prefixes[0] = MEMFS_STR("HEAD");
    git_ls_refs_answer(&out, &ls, &tip);
    assert_string_equal(out.ptr, "0050" A " HEAD symref-target:refs/heads/main\n0000");
    buf_clear(&out);
    ls = (git_ls_refs){ .n_prefixes = 0 };
    git_ls_refs_answer(&out, &ls, &tip);
    assert_string_equal(out.ptr, "0032" A " HEAD\n003d" A " refs/heads/main\n0000");
    buf_dispose(&out);
}

static void test_too_many_prefixes_mean_all_refs(void **state)
{
    const char *lines[GIT_WIRE_MAX_PREFIXES + 5] = { "command=ls-refs", "0001" };
    memfs_buf out = MEMFS_BUF_INIT(4096);
    git_v2_command command;
    memfs_oid tip = oid(A);
    git_ls_refs ls;

    (void)state;
    for (size_t i = 2; i < GIT_WIRE_MAX_PREFIXES + 4; i++)
        lines[i] = "ref-prefix refs/tags/";
    assert_int_equal(parse_v2(lines, &command, &ls), MEMFS_OK);
    git_ls_refs_answer(&out, &ls, &tip);
    assert_non_null(strstr(out.ptr, " refs/heads/main"));
    buf_dispose(&out);
}

static void test_v2_commands(void **state)
{
    const char *fetch[] = { "command=fetch", "0001", "want " A, "done", NULL };
    const char *other[] = { "command=object-info", NULL };
    const char *twice[] = { "command=fetch", "command=ls-refs", NULL };
    const char *none[] = { NULL };
    memfs_error err = MEMFS_ERROR_INIT;
    git_v2_command command;
    git_ls_refs ls;

    (void)state;
    assert_int_equal(parse_v2(fetch, &command, &ls), MEMFS_OK);
    assert_int_equal(command, GIT_V2_FETCH);
    assert_int_equal(parse_v2(other, &command, &ls), MEMFS_OK);
    assert_int_equal(command, GIT_V2_OTHER);
    assert_int_equal(parse_v2(none, &command, &ls), MEMFS_OK);
    assert_int_equal(command, GIT_V2_NONE);
    assert_int_equal(parse_v2(twice, &command, &ls), MEMFS_EINVALID);
    assert_int_equal(git_v2_parse(MEMFS_STR(""), &command, &ls, &err), MEMFS_EINVALID);
    assert_int_equal(git_v2_parse(MEMFS_STR("0014command=ls-refs"), &command, &ls, &err),
                     MEMFS_EINVALID);
    assert_int_equal(git_v2_parse(MEMFS_STR("GET / HTTP/1.1"), &command, &ls, &err),
                     MEMFS_EINVALID);
}

/* ---- pushes ---- */

static memfs_code parse_push(memfs_str bytes, git_push_request *rq, size_t *used)
{
    memfs_error err = MEMFS_ERROR_INIT;

    return git_push_parse(bytes, rq, used, &err);
}

static void add_command(memfs_buf *out, const char *ref, const char *capabilities)
{
    if (capabilities != NULL)
        pkt_printf(out, A " " B " %s%c %s", ref, '\0', capabilities);
    else
        pkt_printf(out, A " " B " %s\n", ref);
}

static void test_push_commands_and_capabilities(void **state)
{
    memfs_buf body = MEMFS_BUF_INIT(4096);
    memfs_oid a = oid(A), b = oid(B);
    git_push_request rq;
    size_t used;

    (void)state;
    pkt_printf(&body, "shallow %s", A);
    add_command(&body, "refs/heads/main",
                "report-status-v2 side-band-64k object-format=sha1 agent=git/2.39.5");
    add_command(&body, "refs/tags/v1", NULL);
    pkt_flush(&body);
    buf_puts(&body, "PACK...");
    assert_int_equal(parse_push(buf_str(&body), &rq, &used), MEMFS_OK);
    assert_int_equal(body.len - used, 7);
    assert_int_equal(rq.n_commands, 2);
    assert_true(oid_equal(&rq.commands[0].old_id, &a) && oid_equal(&rq.commands[0].new_id, &b));
    assert_true(str_equal(rq.commands[0].ref, MEMFS_STR("refs/heads/main")));
    assert_true(str_equal(rq.commands[1].ref, MEMFS_STR("refs/tags/v1")));
    assert_true(rq.report_status_v2 && rq.side_band_64k && !rq.report_status && !rq.quiet &&
                !rq.atomic);
    buf_dispose(&body);
}

static void test_a_push_may_come_in_any_pieces(void **state)
{
    memfs_buf body = MEMFS_BUF_INIT(4096);
    git_push_request rq;
    size_t used;

    (void)state;
    add_command(&body, "refs/heads/main", "report-status");
    pkt_flush(&body);
    for (size_t n = 0; n < body.len; n++) {
        char *copy = malloc(n + 1); /* so that a read past the piece is seen */

        memcpy(copy, body.ptr, n);
        assert_int_equal(parse_push(str_make(copy, n), &rq, &used), MEMFS_OK);
        assert_int_equal(used, 0);
        free(copy);
    }
    assert_int_equal(parse_push(buf_str(&body), &rq, &used), MEMFS_OK);
    assert_int_equal(used, body.len);
    buf_dispose(&body);
}

static void test_K7_a_lone_flush_is_a_probe(void **state)
{
    git_push_request rq;
    size_t used;

    (void)state;
    assert_int_equal(parse_push(MEMFS_STR("0000"), &rq, &used), MEMFS_OK);
    assert_int_equal(used, 4);
    assert_int_equal(rq.n_commands, 0);
}

static void test_T10_a_push_names_at_most_16_refs(void **state)
{
    memfs_buf body = MEMFS_BUF_INIT(8192);
    git_push_request rq;
    size_t used;

    (void)state;
    for (int i = 0; i < GIT_WIRE_MAX_COMMANDS; i++)
        add_command(&body, "refs/heads/x", NULL);
    assert_int_equal(parse_push(buf_str(&body), &rq, &used), MEMFS_OK);
    add_command(&body, "refs/heads/x", NULL);
    assert_int_equal(parse_push(buf_str(&body), &rq, &used), MEMFS_ELIMIT);
    buf_dispose(&body);
}

static void test_malformed_pushes_are_refused(void **state)
{
    static const char *const lines[] = {
        "hello",
        A,
        A " " B,
        A " " B " ",
        A "  " B " refs/heads/main",
        A "x" B " refs/heads/main",
        "111 " B " refs/heads/main",
        A " "
          "ABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCD"
          " refs/heads/main",
        "push-cert",
        "push-cert-end",
    };
    memfs_buf body = MEMFS_BUF_INIT(4096);
    git_push_request rq;
    size_t used;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        buf_clear(&body);
        pkt_printf(&body, "%s", lines[i]);
        pkt_flush(&body);
        assert_int_equal(parse_push(buf_str(&body), &rq, &used), MEMFS_EINVALID);
    }
    buf_clear(&body);
    add_command(&body, "refs/heads/main", "push-options");
    assert_int_equal(parse_push(buf_str(&body), &rq, &used), MEMFS_EINVALID);
    buf_clear(&body);
    add_command(&body, "refs/heads/main", "object-format=sha256");
    assert_int_equal(parse_push(buf_str(&body), &rq, &used), MEMFS_EINVALID);
    assert_int_equal(parse_push(MEMFS_STR("POST"), &rq, &used), MEMFS_EINVALID);
    assert_int_equal(parse_push(MEMFS_STR("0001"), &rq, &used), MEMFS_EINVALID);
    buf_dispose(&body);
}

static void test_reports_say_ok_or_why_not(void **state)
{
    const char *refusals[2] = { NULL, "bad\nname\x1b[2J" };
    memfs_buf out = MEMFS_BUF_INIT(4096);
    git_push_request rq = { .n_commands = 2, .report_status = true };

    (void)state;
    rq.commands[0].ref = MEMFS_STR("refs/heads/main");
    rq.commands[1].ref = MEMFS_STR("refs/x");
    git_push_report(&out, &rq, "", refusals);
    assert_string_equal(out.ptr, "000eunpack ok\n0017ok refs/heads/main\n"
                                 "001bng refs/x bad?name?[2J\n0000");
    buf_clear(&out);
    rq.n_commands = 1;
    refusals[0] = "unpacker error";
    git_push_report(&out, &rq, "no space", refusals);
    assert_string_equal(out.ptr,
                        "0014unpack no space\n0026ng refs/heads/main unpacker error\n0000");
    buf_clear(&out);
    rq.report_status = false;
    git_push_report(&out, &rq, "", refusals);
    assert_int_equal(out.len, 0);
    buf_dispose(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packets_are_read_one_by_one),
        cmocka_unit_test(test_bands_are_cut_into_packets_of_the_largest_size),
        cmocka_unit_test(test_T05_only_known_versions_count),
        cmocka_unit_test(test_refs_are_advertised_as_git_does_it),
        cmocka_unit_test(test_ls_refs_arguments),
        cmocka_unit_test(test_too_many_prefixes_mean_all_refs),
        cmocka_unit_test(test_v2_commands),
        cmocka_unit_test(test_push_commands_and_capabilities),
        cmocka_unit_test(test_a_push_may_come_in_any_pieces),
        cmocka_unit_test(test_K7_a_lone_flush_is_a_probe),
        cmocka_unit_test(test_T10_a_push_names_at_most_16_refs),
        cmocka_unit_test(test_malformed_pushes_are_refused),
        cmocka_unit_test(test_reports_say_ok_or_why_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
