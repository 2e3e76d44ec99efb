/*
 * Tokens and the one decision: the table of auth.h, row by row, over every route that there is.
 */
#include "cache_fixture.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "server/app.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#define OWN "agent-11111111-1111-4111-8111-111111111111"
#define REPO "repo-11111111-1111-4111-8111-111111111111"
#define OTHER "agent-22222222-2222-4222-8222-222222222222"
#undef assert_ok
#define assert_ok(call)                                                                            \
    do {                                                                                           \
        if ((call) != MEMFS_OK)                                                                    \
            fail_msg("%s failed", #call);                                                          \
    } while (0)
#define HOUR_US (3600ll * 1000000)

typedef struct fix {
    fixture *f;
    state *s;
    auth *a;
} fix;

static int set_up(void **ret)
{
    static fix x;
    fixture *f = x.f = fixture_new("auth");

    assert_ok(state_open_sqlite(f->root, &x.s, &f->err));
    assert_ok(auth_open(x.s, false, &x.a, &f->err));
    *ret = &x;
    return 0;
}

static int tear_down(void **ret)
{
    fix *x = *ret;

    auth_close(x->a);
    state_close(x->s);
    fixture_free(x->f);
    return 0;
}

typedef struct token {
    char text[AUTH_TOKEN_LEN + 1], id[16], bearer[80];
} token;

static token make(fix *x, const char *scope, int64_t expires_at_us)
{
    token t;

    assert_ok(auth_token_create(x->a, MEMFS_STR("test"), str_of(scope), expires_at_us, t.text, t.id,
                                &x->f->err));
    snprintf(t.bearer, sizeof(t.bearer), "Bearer %s", t.text);
    return t;
}

static auth_verdict ask_as(fix *x, http_access access, const char *agent, bool is_writing,
                           const char *header, auth_principal *ret)
{
    auth_question q = { .access = access, .agent_id = str_of(agent), .is_writing = is_writing,
                        .header = header };

    return auth_judge(x->a, &q, ret);
}

static auth_verdict ask(fix *x, http_access access, const char *agent, bool is_writing,
                        const char *header)
{
    auth_principal ignored;

    return ask_as(x, access, agent, is_writing, header, &ignored);
}

/* ---- tokens ---- */

static void S4_a_token_has_256_bits_and_is_stored_as_its_hash(void **arg)
{
    fix *x = *arg;
    token a = make(x, "admin", 0), b = make(x, "admin", 0);

    assert_int_equal(strlen(a.text), AUTH_TOKEN_LEN);
    assert_memory_equal(a.text, "memfs_", 6);
    assert_int_equal(strspn(a.text + 6, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"),
                     43);
    assert_string_not_equal(a.text, b.text);
    assert_string_not_equal(a.id, b.id);
    assert_int_equal(strspn(a.id, "0123456789abcdef"), 8);
}

static memfs_code check_row(const state_token *row, void *ctx, memfs_error *err)
{
    const token *t = ctx;
    uint8_t hash[HASH_SHA256];

    (void)err;
    hash_sha256(str_make(t->text, AUTH_TOKEN_LEN), hash);
    assert_memory_equal(hash, row->hash, sizeof(hash));
    assert_true(str_equal(row->id, str_of(t->id)));
    assert_true(str_equal(row->name, MEMFS_STR("test")));
    assert_int_equal(row->expires_at_us, 77 * HOUR_US);
    return MEMFS_OK;
}

static void the_row_has_the_hash_and_the_public_id(void **arg)
{
    fix *x = *arg;
    token t = make(x, "admin", 77 * HOUR_US);

    assert_ok(auth_tokens(x->a, check_row, &t, &x->f->err));
}

static void scopes_are_few_and_exact(void **arg)
{
    static const char *const good[] = { "admin", "agent:" OWN ":rw", "agent:" OWN ":ro", "repo:" REPO ":rw",
                                        "repo:" REPO ":ro" };
    static const char *const bad[] = {
        "", "Admin", "admin ", "agent", "agent:", "agent:" OWN, "agent:" OWN ":", "agent:" OWN ":RW",
        "agent:" OWN ":rw:", "agent:" OWN ":rwx", "agent::rw", "agent:*:rw", "agent:agent-1:rw",
        "repo:" OWN ":rw", "agent:" REPO ":rw", "repo:repo-1:rw", "repo:" REPO ":", "agent:agent-11111111-1111-4111-8111-11111111111G:rw", ":" OWN ":rw",
    };
    memfs_error err;

    (void)arg;
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_int_equal(auth_scope_check(str_of(good[i]), &err), MEMFS_OK);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(auth_scope_check(str_of(bad[i]), &err), MEMFS_EINVALID);
}

static void a_bad_scope_makes_no_token(void **arg)
{
    fix *x = *arg;
    char text[AUTH_TOKEN_LEN + 1], id[16];

    assert_int_equal(auth_token_create(x->a, MEMFS_STR(""), MEMFS_STR("root"), 0, text, id,
                                       &x->f->err), MEMFS_EINVALID);
    assert_false(auth_is_on(x->a));
}

/* ---- on and off ---- */

static void without_tokens_everybody_is_admin(void **arg)
{
    fix *x = *arg;
    auth_principal p;

    assert_false(auth_is_on(x->a));
    assert_int_equal(ask_as(x, HTTP_ACCESS_AGENT, OWN, true, NULL, &p), AUTH_SERVE);
    assert_int_equal(p.level, AUTH_ADMIN);
    assert_string_equal(p.agent_id, "");
    assert_int_equal(ask(x, HTTP_ACCESS_ADMIN, "", true, "Bearer anything"), AUTH_SERVE);
}

static void the_first_token_turns_authentication_on_and_revoking_it_opens_nothing(void **arg)
{
    fix *x = *arg;
    token t = make(x, "admin", 0);

    assert_true(auth_is_on(x->a));
    assert_int_equal(ask(x, HTTP_ACCESS_AGENT, OWN, false, NULL), AUTH_401);
    assert_int_equal(ask(x, HTTP_ACCESS_AGENT, OWN, true, t.bearer), AUTH_SERVE);
    assert_ok(auth_token_revoke(x->a, str_of(t.id), &x->f->err));
    assert_true(auth_is_on(x->a));
    assert_int_equal(ask(x, HTTP_ACCESS_AGENT, OWN, true, t.bearer), AUTH_401);
    assert_int_equal(ask(x, HTTP_ACCESS_AGENT, OWN, true, NULL), AUTH_401);
    assert_int_equal(auth_token_revoke(x->a, MEMFS_STR("00000000"), &x->f->err), MEMFS_ENOTFOUND);
}

static void a_forced_authentication_needs_no_token_to_be_on(void **arg)
{
    fix *x = *arg;
    auth *forced;
    auth_question q = { .access = HTTP_ACCESS_ALL };
    auth_principal p;

    assert_ok(auth_open(x->s, true, &forced, &x->f->err));
    assert_true(auth_is_on(forced));
    assert_int_equal(auth_judge(forced, &q, &p), AUTH_401);
    auth_close(forced);
}

static void tokens_are_there_again_after_a_start(void **arg)
{
    fix *x = *arg;
    token t = make(x, "agent:" OWN ":ro", 0), gone = make(x, "admin", 0);

    assert_ok(auth_token_revoke(x->a, str_of(gone.id), &x->f->err));
    auth_close(x->a);
    assert_ok(auth_open(x->s, false, &x->a, &x->f->err));
    assert_int_equal(ask(x, HTTP_ACCESS_AGENT, OWN, false, t.bearer), AUTH_SERVE);
    assert_int_equal(ask(x, HTTP_ACCESS_AGENT, OWN, false, gone.bearer), AUTH_401);
}

static void an_expired_token_is_none(void **arg)
{
    fix *x = *arg;
    token late = make(x, "admin", clock_wall_us() - 1), good = make(x, "admin",
                                                                  clock_wall_us() + HOUR_US);

    assert_int_equal(ask(x, HTTP_ACCESS_ALL, "", false, late.bearer), AUTH_401);
    assert_int_equal(ask(x, HTTP_ACCESS_ALL, "", false, good.bearer), AUTH_SERVE);
}

/* The table grows, and every token is found in it, also beside many that were revoked. */
static void many_tokens_are_all_found(void **arg)
{
    enum { N = 200 };
    static token tokens[N];
    fix *x = *arg;
    auth_principal p;

    for (int i = 0; i < N; i++)
        tokens[i] = make(x, i % 2 == 0 ? "admin" : "agent:" OWN ":rw", 0);
    for (int i = 0; i < N; i += 3)
        assert_ok(auth_token_revoke(x->a, str_of(tokens[i].id), &x->f->err));
    for (int i = 0; i < N; i++) {
        auth_verdict v = ask_as(x, HTTP_ACCESS_AGENT, OWN, true, tokens[i].bearer, &p);

        assert_int_equal(v, i % 3 == 0 ? AUTH_401 : AUTH_SERVE);
        if (i % 3 != 0)
            assert_string_equal(p.token_id, tokens[i].id);
    }
}

/* ---- the header ---- */

static void base64(const char *text, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = strlen(text);

    for (size_t i = 0; i < n; i += 3) {
        uint32_t bits = 0;

        for (size_t k = 0; k < 3; k++)
            bits = bits << 8 | (i + k < n ? (uint8_t)text[i + k] : 0);
        for (size_t k = 0; k < 4; k++)
            *out++ = i + k < n + 1 ? digits[bits >> (18 - 6 * k) & 63] : '=';
    }
    *out = '\0';
}

static void bearer_and_basic_in_their_forms(void **arg)
{
    fix *x = *arg;
    token t = make(x, "admin", 0);
    static const struct {
        const char *fmt;
        bool is_basic;
        auth_verdict want;
    } rows[] = {
        { "Bearer %s", false, AUTH_SERVE },   { "bearer %s", false, AUTH_SERVE },
        { "BEARER   %s", false, AUTH_SERVE }, { "Bearer %s ", false, AUTH_401 },
        { "Bearer%s", false, AUTH_401 },      { "Token %s", false, AUTH_401 },
        { "%s", false, AUTH_401 },            { "Bearer letta:%s", false, AUTH_401 },
        { "letta:%s", true, AUTH_SERVE },     { ":%s", true, AUTH_SERVE },
        { "x-access-token:%s", true, AUTH_SERVE },
        { "%s", true, AUTH_401 },             { "%s:", true, AUTH_401 },
        { "a:b:%s", true, AUTH_401 },         { "letta:%sx", true, AUTH_401 },
    };
    char plain[200], coded[300], header[400];

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        snprintf(plain, sizeof(plain), rows[i].fmt, t.text);
        base64(plain, coded);
        snprintf(header, sizeof(header), "%s%s", rows[i].is_basic ? "Basic " : "",
                 rows[i].is_basic ? coded : plain);
        if (ask(x, HTTP_ACCESS_ALL, "", true, header) != rows[i].want)
            fail_msg("'%s' (%s)", rows[i].fmt, rows[i].is_basic ? "Basic" : "as it is");
    }
}

static void nonsense_is_no_credential(void **arg)
{
    static char long_one[4000];
    static const char *const rows[] = {
        "", " ", "Basic", "Basic ", "Basic %%%", "Basic bGV0dGE", "Basic ====", "Bearer", "Bearer ",
        "Basic bGV0dGE6", "Negotiate abc", "Basic \xff\xfe", long_one,
    };
    fix *x = *arg;

    memset(long_one, 'a', sizeof(long_one) - 1);
    memcpy(long_one, "Basic ", 6);
    make(x, "admin", 0);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_int_equal(ask(x, HTTP_ACCESS_AGENT, OWN, false, rows[i]), AUTH_401);
}

/* ---- the table ---- */

static auth_verdict expected(http_access access, auth_level level, bool is_own, bool is_writing)
{
    if (access == HTTP_ACCESS_OWNER)
        return AUTH_404;
    if (access == HTTP_ACCESS_OPEN || access == HTTP_ACCESS_HOOK)
        return AUTH_SERVE;
    if (level == AUTH_NOBODY || access == HTTP_ACCESS_PEER)
        return AUTH_401;
    if (level == AUTH_ADMIN)
        return AUTH_SERVE;
    if (access == HTTP_ACCESS_ADMIN)
        return AUTH_403;
    if (access == HTTP_ACCESS_AGENT && !is_own)
        return AUTH_404;
    return is_writing && level == AUTH_AGENT_RO ? AUTH_403 : AUTH_SERVE;
}

static void S1_every_access_with_every_token(void **arg)
{
    fix *x = *arg;
    const struct {
        auth_level level;
        token t;
    } who[] = {
        { AUTH_ADMIN, make(x, "admin", 0) },
        { AUTH_AGENT_RW, make(x, "agent:" OWN ":rw", 0) },
        { AUTH_AGENT_RO, make(x, "agent:" OWN ":ro", 0) },
        { AUTH_NOBODY, { .bearer = "Bearer memfs_0000000000000000000000000000000000000000000" } },
    };
    const char *const agents[] = { OWN, OTHER, "", "nonsense", OWN "0", "agent-" };

    for (size_t i = 0; i < ARRAY_LEN(who) * ARRAY_LEN(agents) * 2; i++) {
        size_t w = i / 2 % ARRAY_LEN(who), g = i / 2 / ARRAY_LEN(who);
        bool is_writing = i % 2 != 0;

        for (int access = HTTP_ACCESS_OPEN; access <= HTTP_ACCESS_OWNER; access++)
            assert_int_equal(ask(x, (http_access)access, agents[g], is_writing, who[w].t.bearer),
                             expected((http_access)access, who[w].level, g == 0, is_writing));
    }
}

/* A shared repository's token: on its own routes, and as the memory that git asks for. */
static void S1_every_access_with_a_repositorys_token(void **arg)
{
    fix *x = *arg;
    token rw = make(x, "repo:" REPO ":rw", 0), ro = make(x, "repo:" REPO ":ro", 0);
    const char *const other = "repo-22222222-2222-4222-8222-222222222222";
    const struct {
        http_access access;
        const char *agent, *repo;
        auth_verdict reading, writing; /* of rw; ro never writes */
    } rows[] = {
        { HTTP_ACCESS_SHARED, "", REPO, AUTH_SERVE, AUTH_SERVE },
        { HTTP_ACCESS_SHARED, "", other, AUTH_404, AUTH_404 },
        { HTTP_ACCESS_SHARED, "", "", AUTH_404, AUTH_404 },
        { HTTP_ACCESS_AGENT, REPO, "", AUTH_SERVE, AUTH_SERVE },
        { HTTP_ACCESS_AGENT, OWN, "", AUTH_404, AUTH_404 },
        { HTTP_ACCESS_AGENT, other, "", AUTH_404, AUTH_404 },
        { HTTP_ACCESS_ALL, "", "", AUTH_SERVE, AUTH_403 },
        { HTTP_ACCESS_ADMIN, "", REPO, AUTH_403, AUTH_403 },
        { HTTP_ACCESS_OWNER, "", "", AUTH_404, AUTH_404 },
    };

    for (size_t i = 0; i < 4 * ARRAY_LEN(rows); i++) {
        bool is_writing = i % 2 != 0, is_ro = i / 2 % 2 != 0;
        auth_verdict want = is_writing ? rows[i / 4].writing : rows[i / 4].reading;
        auth_question q = { .access = rows[i / 4].access,
                            .agent_id = str_of(rows[i / 4].agent),
                            .repo_id = str_of(rows[i / 4].repo),
                            .is_writing = is_writing,
                            .header = is_ro ? ro.bearer : rw.bearer };
        auth_principal p;

        if (want == AUTH_SERVE && is_writing && is_ro)
            want = AUTH_403;
        assert_int_equal(auth_judge(x->a, &q, &p), want);
    }
}

static bool is_fours(const uint8_t *hash, void *ctx)
{
    uint8_t of_fours[32];

    hash_sha256(MEMFS_STR("4444"), of_fours);
    ++*(int *)ctx;
    return hash_equal(hash, of_fours, sizeof(of_fours));
}

static void S1_another_servers_secret_opens_its_own_routes_and_no_others(void **arg)
{
    fix *x = *arg;
    int n_asked = 0;

    make(x, "admin", 0);
    auth_set_peers(x->a, is_fours, &n_asked);
    for (int access = HTTP_ACCESS_AGENT; access < HTTP_ACCESS_OWNER; access++)
        assert_int_equal(ask(x, (http_access)access, OWN, false, "Bearer 4444"),
                         access == HTTP_ACCESS_PEER || access == HTTP_ACCESS_HOOK ? AUTH_SERVE : AUTH_401);
    assert_int_equal(n_asked, 1);
    assert_int_equal(ask(x, HTTP_ACCESS_PEER, OWN, false, "Bearer 4445"), AUTH_401);
    assert_int_equal(ask(x, HTTP_ACCESS_PEER, OWN, false, "Basic bWVtZnM6NDQ0NA=="), AUTH_SERVE);
}

static void S2_an_access_that_is_not_in_the_table_opens_for_no_agent(void **arg)
{
    fix *x = *arg;
    token t = make(x, "agent:" OWN ":rw", 0);

    assert_int_equal(ask(x, (http_access)0, OWN, false, t.bearer), AUTH_403);
    assert_int_equal(ask(x, (http_access)(HTTP_ACCESS_OWNER + 1), OWN, false, t.bearer), AUTH_403);
    assert_int_equal(ask(x, (http_access)0, OWN, false, NULL), AUTH_401);
}

static void an_agents_token_says_whose_it_is(void **arg)
{
    fix *x = *arg;
    token t = make(x, "agent:" OWN ":ro", 0);
    auth_principal p;

    assert_int_equal(ask_as(x, HTTP_ACCESS_ALL, "", false, t.bearer, &p), AUTH_SERVE);
    assert_int_equal(p.level, AUTH_AGENT_RO);
    assert_string_equal(p.agent_id, OWN);
    assert_string_equal(p.token_id, t.id);
}

static void the_socket_is_the_owners(void **arg)
{
    fix *x = *arg;
    auth_question q = { .access = HTTP_ACCESS_OWNER, .is_socket = true, .header = "Bearer bad" };
    auth_principal p;

    make(x, "admin", 0);
    assert_int_equal(auth_judge(x->a, &q, &p), AUTH_SERVE);
    assert_int_equal(p.level, AUTH_ADMIN);
}

/* ---- T04: what the log says ---- */

/* What is written to stderr by fn. */
static size_t count_lines(fix *x, void (*fn)(fix *x), const char *needle)
{
    char text[20000] = "";
    int out[2], kept = dup(2);
    size_t n = 0;
    ssize_t got;

    assert_int_equal(pipe(out), 0);
    fflush(stderr);
    dup2(out[1], 2);
    log_set_level(LOG_WARN);
    fn(x);
    dup2(kept, 2);
    close(kept);
    close(out[1]);
    log_set_level(LOG_WARN);
    got = read(out[0], text, sizeof(text) - 1);
    close(out[0]);
    text[got > 0 ? got : 0] = '\0';
    for (const char *at = strstr(text, needle); at != NULL; at = strstr(at + 1, needle))
        n++;
    return n;
}

static void guess(fix *x, int n, const char *source)
{
    auth_question q = { .access = HTTP_ACCESS_ALL, .header = "Bearer wrong", .source = source };
    auth_principal p;

    for (int i = 0; i < n; i++)
        assert_int_equal(auth_judge(x->a, &q, &p), AUTH_401);
}

static void guess_ten_thousand(fix *x)
{
    guess(x, 10000, "192.0.2.1");
    auth_tell_failures(x->a, clock_mono_ms());
}

static void guess_from_many(fix *x)
{
    char source[32];

    for (int i = 0; i < 1000; i++) {
        snprintf(source, sizeof(source), "2001:db8::%x", (unsigned)i);
        guess(x, 3, source);
    }
}

static void a_minute_later(fix *x)
{
    auth_tell_failures(x->a, clock_mono_ms() + 61000);
}

static void T04_guesses_are_told_once_a_minute_and_lock_nobody_out(void **arg)
{
    fix *x = *arg;
    token t = make(x, "admin", 0);

    assert_int_equal(count_lines(x, guess_ten_thousand, "auth_failed"), 1);
    assert_int_equal(ask(x, HTTP_ACCESS_ALL, "", true, t.bearer), AUTH_SERVE);
    assert_int_equal(count_lines(x, a_minute_later, "source=192.0.2.1 count=9999"), 1);
    assert_int_equal(count_lines(x, a_minute_later, "auth_failed"), 0);
}

/* ---- T04: what guessing costs ---- */

static int64_t guess_once(fix *x, int i, const char *source, int64_t now_ms)
{
    char header[64];

    snprintf(header, sizeof(header), "Bearer memfs_%043d", i);
    return auth_count_failure(x->a, source, header, now_ms);
}

static void T04_twenty_guesses_are_free_and_the_next_wait_longer_and_longer(void **arg)
{
    fix *x = *arg;
    int64_t wait_ms = 0, longest = 0;

    for (int i = 0; i < 20; i++)
        assert_int_equal(guess_once(x, i, "192.0.2.1", 1000), 0);
    assert_int_equal(guess_once(x, 20, "192.0.2.1", 1000), 500);
    for (int i = 21; i < 10000; i++) {
        wait_ms = guess_once(x, i, "192.0.2.1", 1000);
        assert_true(wait_ms >= longest);
        longest = wait_ms;
    }
    assert_int_equal(longest, 8000);
    assert_int_equal(guess_once(x, 0, "192.0.2.2", 1000), 0); /* another source */
}

static void T04_a_client_that_repeats_one_bad_token_never_waits(void **arg)
{
    fix *x = *arg;

    for (int i = 0; i < 200; i++)
        assert_int_equal(guess_once(x, i % 4, "192.0.2.1", 1000), 0);
    for (int i = 0; i < 200; i++) /* nor does what is no credential at all */
        assert_int_equal(auth_count_failure(x->a, "192.0.2.1", "Digest x", 1000), 0);
    for (int i = 0; i < 16; i++)
        assert_int_equal(guess_once(x, 100 + i, "192.0.2.1", 1000), 0);
    assert_int_equal(guess_once(x, 116, "192.0.2.1", 1000), 500);
}

static void T04_time_forgives_one_guess_a_second(void **arg)
{
    fix *x = *arg;

    for (int i = 0; i < 5000; i++)
        (void)guess_once(x, i, "192.0.2.1", 1000);
    assert_int_equal(guess_once(x, 5000, "192.0.2.1", 1000 + 5000), 8000);
    for (int i = 0; i < 100; i++) /* who asks once a second pays no more than at the beginning */
        assert_int_equal(guess_once(x, 6000 + i, "192.0.2.1", 100000 + i * 1000), 0);
    auth_tell_failures(x->a, 300000);
    auth_tell_failures(x->a, 400000);
    assert_int_equal(guess_once(x, 1, "192.0.2.1", 400000), 0);
}

static void T04_only_who_guesses_is_to_wait(void **arg)
{
    fix *x = *arg;
    token t = make(x, "admin", 0);
    auth_question q = { .access = HTTP_ACCESS_ALL, .source = "192.0.2.1" };
    char header[64];
    auth_principal p;

    for (int i = 0; i < 60; i++) {
        snprintf(header, sizeof(header), "Bearer memfs_%043d", i);
        q.header = header;
        assert_int_equal(auth_judge(x->a, &q, &p), AUTH_401);
    }
    assert_true(p.wait_ms > 0);
    assert_int_equal(auth_judge(x->a, &q, &p), AUTH_401); /* the same once more */
    assert_int_equal(p.wait_ms, 0);
    q.header = NULL;
    assert_int_equal(auth_judge(x->a, &q, &p), AUTH_401);
    assert_int_equal(p.wait_ms, 0);
    q.header = t.bearer;
    assert_int_equal(auth_judge(x->a, &q, &p), AUTH_SERVE);
    assert_int_equal(p.level, AUTH_ADMIN);
    assert_int_equal(p.wait_ms, 0);
}

static void T04_many_sources_fill_neither_log_nor_memory(void **arg)
{
    fix *x = *arg;

    make(x, "admin", 0);
    assert_in_range(count_lines(x, guess_from_many, "auth_failed"), 2, 66);
    assert_int_equal(count_lines(x, a_minute_later, "source=others"), 1);
}

static void asking_without_a_token_is_no_failure(fix *x)
{
    auth_question q = { .access = HTTP_ACCESS_ALL, .source = "192.0.2.7" };
    auth_principal p;

    assert_int_equal(auth_judge(x->a, &q, &p), AUTH_401);
}

static void gits_first_try_is_not_counted(void **arg)
{
    fix *x = *arg;

    make(x, "admin", 0);
    assert_int_equal(count_lines(x, asking_without_a_token_is_no_failure, "auth_failed"), 0);
}

/* ---- threads ---- */

static atomic_bool is_over;
static token steady;

static void *ask_all_the_time(void *arg)
{
    while (!atomic_load(&is_over))
        assert_int_equal(ask(arg, HTTP_ACCESS_ALL, "", true, steady.bearer), AUTH_SERVE);
    return NULL;
}

static void tokens_change_under_load(void **arg)
{
    fix *x = *arg;
    pthread_t threads[3];

    steady = make(x, "admin", 0);
    atomic_store(&is_over, false);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask_all_the_time, x), 0);
    for (int i = 0; i < 60; i++) {
        token t = make(x, "agent:" OWN ":rw", 0);

        assert_int_equal(ask(x, HTTP_ACCESS_AGENT, OWN, true, t.bearer), AUTH_SERVE);
        assert_ok(auth_token_revoke(x->a, str_of(t.id), &x->f->err));
        assert_int_equal(ask(x, HTTP_ACCESS_AGENT, OWN, true, t.bearer), AUTH_401);
    }
    atomic_store(&is_over, true);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        pthread_join(threads[i], NULL);
}

#define ROW(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROW(S4_a_token_has_256_bits_and_is_stored_as_its_hash),
        ROW(the_row_has_the_hash_and_the_public_id),
        ROW(scopes_are_few_and_exact),
        ROW(a_bad_scope_makes_no_token),
        ROW(without_tokens_everybody_is_admin),
        ROW(the_first_token_turns_authentication_on_and_revoking_it_opens_nothing),
        ROW(a_forced_authentication_needs_no_token_to_be_on),
        ROW(tokens_are_there_again_after_a_start),
        ROW(an_expired_token_is_none),
        ROW(many_tokens_are_all_found),
        ROW(bearer_and_basic_in_their_forms),
        ROW(nonsense_is_no_credential),
        ROW(S1_every_access_with_every_token),
        ROW(S1_every_access_with_a_repositorys_token),
        ROW(S2_an_access_that_is_not_in_the_table_opens_for_no_agent),
        ROW(S1_another_servers_secret_opens_its_own_routes_and_no_others),
        ROW(an_agents_token_says_whose_it_is),
        ROW(the_socket_is_the_owners),
        ROW(T04_guesses_are_told_once_a_minute_and_lock_nobody_out),
        ROW(T04_twenty_guesses_are_free_and_the_next_wait_longer_and_longer),
        ROW(T04_a_client_that_repeats_one_bad_token_never_waits),
        ROW(T04_time_forgives_one_guess_a_second),
        ROW(T04_only_who_guesses_is_to_wait),
        ROW(T04_many_sources_fill_neither_log_nor_memory),
        ROW(gits_first_try_is_not_counted),
        ROW(tokens_change_under_load),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
