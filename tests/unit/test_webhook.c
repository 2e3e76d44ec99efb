/*
 * Webhooks (T22): vectors of every host, what must not pass, what is read of a payload.
 *
 * Signatures of the tables were made with `openssl dgst -sha256 -hmac SECRET` over the bytes given.
 */
#include "base/hmac.h"
#include "base/mem.h"
#include "memory/base64.h"
#include "remote/webhook.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
/* after the four above: cmocka needs them */
#include <cmocka.h>

#define NOW_S 1790000000
#define AFTER "9b1a2f3c4d5e6f708192a3b4c5d6e7f801234567"

typedef struct head {
    const char *name, *value;
} head;

/* NULL name ends it. */
static const char *find_header(const char *name, void *ctx)
{
    for (const head *h = ctx; h->name != NULL; h++)
        if (strcasecmp(h->name, name) == 0)
            return h->value;
    return NULL;
}

static webhook_delivery delivery(host_kind kind, const head *heads, memfs_str body)
{
    return (webhook_delivery){ kind, find_header, (void *)heads, body };
}

static memfs_code prove(host_kind kind, const head *heads, memfs_str body, const char *secret,
                        webhook_proof *ret)
{
    memfs_str secrets[] = { MEMFS_STR("another one"), str_of(secret) };
    webhook_delivery d = delivery(kind, heads, body);
    memfs_error err = MEMFS_ERROR_INIT;

    return webhook_prove(&d, secrets, 2, NOW_S, ret, &err);
}

static char *hex_hmac(const char *secret, memfs_str body)
{
    uint8_t digest[HASH_SHA256];
    char hex[65];
    hmac m;

    hmac_begin(&m, str_of(secret));
    hmac_add(&m, body);
    hmac_end(&m, digest);
    hash_hex(digest, sizeof(digest), hex);
    return mem_strdup(hex);
}

/* ---- proof ---- */

static void the_vector_of_githubs_documentation_passes(void **state)
{
    const head heads[] = {
        { "X-GitHub-Event", "ping" },
        { "X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958" },
        { "X-Hub-Signature-256",
          "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17" },
        { NULL, NULL },
    };
    webhook_proof proof;

    (void)state;
    assert_int_equal(prove(HOST_UNKNOWN, heads, MEMFS_STR("Hello, World!"),
                           "It's a Secret to Everybody", &proof), MEMFS_OK);
    assert_int_equal(proof.kind, HOST_GITHUB);
    assert_string_equal(proof.event, "ping");
    assert_string_equal(proof.id, "72d3162e-cc78-11e3-81ab-4c9367dc0958");
    assert_int_equal(proof.secret, 1);
    assert_int_equal(prove(HOST_GITHUB, heads, MEMFS_STR("Hello, World!"),
                           "It's a Secret to Everybody", &proof), MEMFS_OK);
    assert_int_equal(prove(HOST_UNKNOWN, heads, MEMFS_STR("Hello, World?"),
                           "It's a Secret to Everybody", &proof), MEMFS_EDENIED);
    assert_int_equal(prove(HOST_UNKNOWN, heads, MEMFS_STR("Hello, World!"),
                           "It's a Secret to Everybodx", &proof), MEMFS_EDENIED);
}

static void a_signature_of_gitea_is_bare_hex(void **state)
{
    /* printf '{\n  "ref": "refs/heads/main"\n}' | openssl dgst -sha256 -hmac s3cret */
    memfs_str body = MEMFS_STR("{\n  \"ref\": \"refs/heads/main\"\n}");
    head heads[] = {
        { "X-Gitea-Event", "push" },
        { "X-Gitea-Delivery", "f6266f16-1bf3-46a5-9ea4-602e06ead473" },
        { "X-GitHub-Event", "push" },
        { "X-GitHub-Delivery", "f6266f16-1bf3-46a5-9ea4-602e06ead473" },
        { "X-Gitea-Signature",
          "73ce07186121d476680d32296a6588731bd7e4dec860ce42e3415c212e5f543e" },
        { NULL, NULL },
    };
    _cleanup_(mem_freep) char *prefixed = mem_printf("sha256=%s", heads[4].value);
    webhook_proof proof;

    (void)state;
    assert_int_equal(prove(HOST_UNKNOWN, heads, body, "s3cret", &proof), MEMFS_OK);
    assert_int_equal(proof.kind, HOST_GITEA);
    assert_string_equal(proof.id, "f6266f16-1bf3-46a5-9ea4-602e06ead473");
    heads[4].value = prefixed;
    assert_int_equal(prove(HOST_UNKNOWN, heads, body, "s3cret", &proof), MEMFS_EDENIED);
    heads[4].value = "";
    assert_int_equal(prove(HOST_UNKNOWN, heads, body, "s3cret", &proof), MEMFS_EDENIED);
}

static void forgejo_is_told_before_gitea_and_takes_its_signature(void **state)
{
    memfs_str body = MEMFS_STR("{}");
    _cleanup_(mem_freep) char *signature = hex_hmac("s3cret", body);
    const head heads[] = {
        { "X-Forgejo-Event", "push" }, { "X-Gitea-Event", "push" }, { "X-GitHub-Event", "push" },
        { "X-Forgejo-Signature", signature }, { NULL, NULL },
    };
    const head older[] = {
        { "X-Forgejo-Event", "push" }, { "X-Gitea-Event", "push" },
        { "X-Gitea-Signature", signature }, { NULL, NULL },
    };
    webhook_proof proof;

    (void)state;
    assert_int_equal(prove(HOST_UNKNOWN, heads, body, "s3cret", &proof), MEMFS_OK);
    assert_int_equal(proof.kind, HOST_FORGEJO);
    assert_int_equal(prove(HOST_GITEA, heads, body, "s3cret", &proof), MEMFS_OK);
    assert_int_equal(prove(HOST_UNKNOWN, older, body, "s3cret", &proof), MEMFS_OK);
    assert_int_equal(prove(HOST_FORGEJO, older, body, "s3cret", &proof), MEMFS_OK);
    assert_int_equal(prove(HOST_GITLAB, older, body, "s3cret", &proof), MEMFS_EINVALID);
}

static void gitlabs_token_is_the_secret_itself(void **state)
{
    head heads[] = {
        { "X-Gitlab-Event", "Push Hook" }, { "X-Gitlab-Token", "s3cret" },
        { "X-Gitlab-Event-UUID", "one-for-many-events" },
        { "Idempotency-Key", "f5e5f430-f57b-4e6e-9fac-d9128cd7232f" },
        { "X-GitHub-Event", "push" }, { NULL, NULL },
    };
    webhook_proof proof;

    (void)state;
    assert_int_equal(prove(HOST_UNKNOWN, heads, MEMFS_STR("{}"), "s3cret", &proof), MEMFS_OK);
    assert_int_equal(proof.kind, HOST_GITLAB);
    assert_string_equal(proof.event, "Push Hook");
    assert_string_equal(proof.id, "f5e5f430-f57b-4e6e-9fac-d9128cd7232f");
    heads[3].name = "X-Other"; /* older than 17.4: the event's id stands for other events too */
    assert_int_equal(prove(HOST_UNKNOWN, heads, MEMFS_STR("{}"), "s3cret", &proof), MEMFS_OK);
    assert_string_equal(proof.id, "");
    heads[1].value = "s3cre";
    assert_int_equal(prove(HOST_UNKNOWN, heads, MEMFS_STR("{}"), "s3cret", &proof), MEMFS_EDENIED);
    heads[1].value = "s3cret2";
    assert_int_equal(prove(HOST_UNKNOWN, heads, MEMFS_STR("{}"), "s3cret", &proof), MEMFS_EDENIED);
}

/* Key: the bytes 0 to 31. */
#define SIGNING_TOKEN "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

static char *standard_signature(const char *id, const char *timestamp, memfs_str body)
{
    _cleanup_(mem_freep) char *text = mem_printf("%s.%s.%.*s", id, timestamp, (int)body.len,
                                                 body.ptr);
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(200);
    uint8_t digest[HASH_SHA256];
    char key[32];
    hmac m;

    for (size_t i = 0; i < sizeof(key); i++)
        key[i] = (char)i;
    hmac_begin(&m, str_make(key, sizeof(key)));
    hmac_add(&m, str_of(text));
    hmac_end(&m, digest);
    buf_puts(&out, "v1,");
    base64_write(str_make((const char *)digest, sizeof(digest)), &out);
    return buf_take(&out, NULL);
}

static memfs_code prove_signed(const char *timestamp, const char *signature, const char *token)
{
    const head heads[] = {
        { "X-Gitlab-Event", "Push Hook" }, { "webhook-id", "msg_1" },
        { "webhook-timestamp", timestamp }, { "webhook-signature", signature },
        { token != NULL ? "X-Gitlab-Token" : "X-Other", token }, { NULL, NULL },
    };
    webhook_proof proof;
    memfs_code rc = prove(HOST_UNKNOWN, heads, MEMFS_STR("{\"a\":1}"), SIGNING_TOKEN, &proof);

    if (rc == MEMFS_OK)
        assert_string_equal(proof.id, "msg_1");
    return rc;
}

static void a_standard_signature_is_one_of_several_and_recent(void **state)
{
    _cleanup_(mem_freep) char *good = standard_signature("msg_1", "1790000000",
                                                         MEMFS_STR("{\"a\":1}"));
    _cleanup_(mem_freep) char *late = standard_signature("msg_1", "1790000301",
                                                         MEMFS_STR("{\"a\":1}"));
    _cleanup_(mem_freep) char *edge = standard_signature("msg_1", "1789999700",
                                                         MEMFS_STR("{\"a\":1}"));
    _cleanup_(mem_freep) char *both = mem_printf("v1,AAAA v2,x %s", good);

    (void)state;
    /* the vector: openssl dgst -mac HMAC -macopt hexkey:000102…1f over "msg_1.1790000000.{"a":1}" */
    assert_string_equal(good, "v1,y/YDzjGYS4offZmS+Djm0zypXSCuS7RgjQDPoMdA9nc=");
    assert_int_equal(prove_signed("1790000000", good, NULL), MEMFS_OK);
    assert_int_equal(prove_signed("1790000000", both, NULL), MEMFS_OK);
    assert_int_equal(prove_signed("1789999700", edge, NULL), MEMFS_OK);
    assert_int_equal(prove_signed("1790000301", late, NULL), MEMFS_EDENIED);
    assert_int_equal(prove_signed("1790000001", good, NULL), MEMFS_EDENIED);
    assert_int_equal(prove_signed("1790000000 ", good, NULL), MEMFS_EDENIED);
    assert_int_equal(prove_signed("-1", good, NULL), MEMFS_EDENIED);
    assert_int_equal(prove_signed("1790000000", "", NULL), MEMFS_EDENIED);
}

static void with_a_signing_token_the_plain_token_proves_nothing(void **state)
{
    (void)state;
    assert_int_equal(prove_signed("1790000000", NULL, SIGNING_TOKEN), MEMFS_EDENIED);
    assert_int_equal(prove_signed("1790000000", "v1,AAAA", SIGNING_TOKEN), MEMFS_EDENIED);
    assert_int_equal(prove_signed(NULL, NULL, SIGNING_TOKEN), MEMFS_EDENIED);
}

static void without_secrets_or_a_sender_nothing_is_proven(void **state)
{
    const head anonymous[] = { { "X-Hub-Signature-256", "sha256=00" }, { NULL, NULL } };
    const head unsigned_push[] = { { "X-GitHub-Event", "push" }, { NULL, NULL } };
    const head empty_token[] = { { "X-Gitlab-Event", "Push Hook" }, { "X-Gitlab-Token", "" },
                                 { NULL, NULL } };
    webhook_delivery d = delivery(HOST_UNKNOWN, unsigned_push, MEMFS_STR("{}"));
    memfs_str empty = MEMFS_STR("");
    memfs_error err = MEMFS_ERROR_INIT;
    webhook_proof proof;

    (void)state;
    assert_int_equal(prove(HOST_UNKNOWN, anonymous, MEMFS_STR("{}"), "s", &proof), MEMFS_EINVALID);
    assert_int_equal(prove(HOST_UNKNOWN, unsigned_push, MEMFS_STR("{}"), "s", &proof),
                     MEMFS_EDENIED);
    assert_int_equal(prove(HOST_UNKNOWN, empty_token, MEMFS_STR("{}"), "s", &proof), MEMFS_EDENIED);
    assert_int_equal(webhook_prove(&d, NULL, 0, NOW_S, &proof, &err), MEMFS_EDENIED);
    d = delivery(HOST_UNKNOWN, empty_token, MEMFS_STR("{}"));
    assert_int_equal(webhook_prove(&d, &empty, 1, NOW_S, &proof, &err), MEMFS_EDENIED);
}

static void all_refusals_have_the_same_words(void **state)
{
    const head no_signature[] = { { "X-GitHub-Event", "push" }, { NULL, NULL } };
    const head bad_signature[] = { { "X-GitHub-Event", "push" },
                                   { "X-Hub-Signature-256", "sha256=00" }, { NULL, NULL } };
    const head too_old[] = { { "X-Gitlab-Event", "Push Hook" }, { "webhook-id", "a" },
                             { "webhook-timestamp", "1" }, { "webhook-signature", "v1,AAAA" },
                             { NULL, NULL } };
    const head *all[] = { no_signature, bad_signature, too_old };
    memfs_str secret = MEMFS_STR(SIGNING_TOKEN);
    memfs_error first = MEMFS_ERROR_INIT, err;
    webhook_proof proof;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        webhook_delivery d = delivery(HOST_UNKNOWN, all[i], MEMFS_STR("{}"));

        assert_int_equal(webhook_prove(&d, &secret, 1, NOW_S, &proof, i == 0 ? &first : &err),
                         MEMFS_EDENIED);
        if (i > 0)
            assert_string_equal(err.msg, first.msg);
    }
}

static void a_delivery_id_that_is_not_printable_is_none(void **state)
{
    memfs_str body = MEMFS_STR("{}");
    _cleanup_(mem_freep) char *hex = hex_hmac("s3cret", body);
    _cleanup_(mem_freep) char *signature = mem_printf("sha256=%s", hex);
    const head heads[] = { { "X-GitHub-Event", "push" }, { "X-Hub-Signature-256", signature },
                           { "X-GitHub-Delivery", "a\033[31mb" }, { NULL, NULL } };
    webhook_proof proof;

    (void)state;
    assert_int_equal(prove(HOST_GITHUB, heads, body, "s3cret", &proof), MEMFS_OK);
    assert_string_equal(proof.id, "");
}

static void a_form_is_signed_as_its_host_does_it(void **state)
{
    memfs_str json = MEMFS_STR("{\"ref\":\"refs/heads/a+b\"}");
    memfs_str form = MEMFS_STR("payload=%7B%22ref%22%3A%22refs%2Fheads%2Fa%2Bb%22%7D");
    _cleanup_(mem_freep) char *of_json = hex_hmac("s3cret", json);
    _cleanup_(mem_freep) char *of_form = hex_hmac("s3cret", form);
    _cleanup_(mem_freep) char *github = mem_printf("sha256=%s", of_form);
    const head from_gitea[] = { { "X-Gitea-Event", "push" }, { "X-Gitea-Signature", of_json },
                                { "Content-Type", "application/x-www-form-urlencoded" },
                                { NULL, NULL } };
    const head from_github[] = { { "X-GitHub-Event", "push" }, { "X-Hub-Signature-256", github },
                                 { "Content-Type",
                                   "application/x-www-form-urlencoded; charset=utf-8" },
                                 { NULL, NULL } };
    const head *all[] = { from_gitea, from_github };

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        webhook_delivery d = delivery(HOST_UNKNOWN, all[i], form);
        memfs_error err = MEMFS_ERROR_INIT;
        webhook_proof proof;
        webhook_hint hint;

        assert_int_equal(prove(HOST_UNKNOWN, all[i], form, "s3cret", &proof), MEMFS_OK);
        assert_int_equal(webhook_read(&d, &proof, &hint, &err), MEMFS_OK);
        assert_true(hint.is_change);
        assert_string_equal(hint.ref, "refs/heads/a+b");
    }
}

/* What we send ourselves passes our own proof, as every kind. */
static void what_is_signed_here_is_proven_here(void **state)
{
    static const struct { host_kind kind, proven; const char *secret; } cases[] = {
        { HOST_GITEA, HOST_GITEA, "s3cret" },       { HOST_FORGEJO, HOST_FORGEJO, "s3cret" },
        { HOST_GITHUB, HOST_GITHUB, "s3cret" },     { HOST_GITLAB, HOST_GITLAB, "s3cret" },
        { HOST_GITLAB, HOST_GITLAB, SIGNING_TOKEN }, { HOST_PLAIN, HOST_PLAIN, "s3cret" },
        { HOST_UNKNOWN, HOST_GITHUB, "s3cret" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        head heads[WEBHOOK_MAX_HEADS + 1] = { { NULL, NULL } };
        webhook_proof proof;
        webhook_heads sent;

        webhook_sign(cases[i].kind, str_of(cases[i].secret), "ping", "id-1", NOW_S,
                     MEMFS_STR("{}"), &sent);
        for (size_t j = 0; j < sent.n; j++) {
            char *colon = strstr(sent.lines[j], ": ");

            *colon = '\0';
            heads[j] = (head){ sent.lines[j], colon + 2 };
        }
        assert_int_equal(prove(HOST_UNKNOWN, heads, MEMFS_STR("{}"), cases[i].secret, &proof),
                         MEMFS_OK);
        assert_int_equal(proof.kind, cases[i].proven);
        assert_string_equal(proof.id, "id-1");
        assert_int_equal(prove(HOST_UNKNOWN, heads, MEMFS_STR("{}"), "other", &proof),
                         MEMFS_EDENIED);
        webhook_heads_dispose(&sent);
    }
}

/* ---- what is read ---- */

static memfs_code read_as(host_kind kind, const char *event, const char *body, webhook_hint *ret)
{
    const head none[] = { { NULL, NULL } };
    webhook_delivery d = delivery(kind, none, str_of(body));
    webhook_proof proof = { .kind = kind };
    memfs_error err = MEMFS_ERROR_INIT;

    snprintf(proof.event, sizeof(proof.event), "%s", event);
    return webhook_read(&d, &proof, ret, &err);
}

static void assert_after(const webhook_hint *hint, const char *hex)
{
    memfs_oid expected = { { 0 } };

    if (hex != NULL)
        assert_true(oid_parse(str_of(hex), &expected));
    assert_true(oid_equal(&hint->after, &expected));
}

static void a_push_of_gitea_is_read(void **state)
{
    webhook_hint hint;

    (void)state;
    assert_int_equal(read_as(HOST_GITEA, "push",
        "{\n  \"ref\": \"refs/heads/main\",\n  \"before\": \"0000000000000000000000000000000000000000\",\n"
        "  \"after\": \"" AFTER "\",\n  \"compare_url\": \"https://h/o/r/compare\",\n"
        "  \"commits\": [{\"id\":\"x\",\"message\":\"a \\\"quote\\\" and } ] \\\\\",\"url\":\"https://h\","
        "\"author\":{\"name\":\"n\",\"email\":\"e\",\"username\":\"u\"},\"committer\":{},"
        "\"timestamp\":\"2026-01-01T00:00:00Z\",\"added\":[],\"removed\":[\"a\"],\"modified\":[]}],\n"
        "  \"total_commits\": 1, \"head_commit\": null,\n"
        "  \"repository\": {\"id\": 1, \"owner\": {\"login\": \"o\", \"html_url\": \"https://h/o\"},"
        " \"name\": \"r\", \"full_name\": \"o/r\", \"private\": true,"
        " \"html_url\": \"https://h/o/r\", \"clone_url\": \"https://h/o/r.git\","
        " \"ssh_url\": \"git@h:o/r.git\", \"default_branch\": \"main\","
        " \"object_format_name\": \"sha1\"},\n"
        "  \"pusher\": {\"login\": \"u\"}, \"sender\": {\"login\": \"u\", \"ref\": \"no\"}\n}\n",
        &hint), MEMFS_OK);
    assert_true(hint.is_change);
    assert_string_equal(hint.ref, "refs/heads/main");
    assert_after(&hint, AFTER);
    assert_string_equal(hint.addresses[0], "https://h/o/r.git");
    assert_string_equal(hint.addresses[1], "git@h:o/r.git");
    assert_string_equal(hint.addresses[2], "https://h/o/r");
}

static void a_push_of_gitlab_is_read(void **state)
{
    webhook_hint hint;

    (void)state;
    assert_int_equal(read_as(HOST_GITLAB, "Push Hook",
        "{\"object_kind\":\"push\",\"event_name\":\"push\",\"before\":\"" AFTER "\",\"after\":"
        "\"" AFTER "\",\"ref\":\"refs/heads/main\",\"checkout_sha\":\"" AFTER "\","
        "\"user_username\":\"u\",\"project_id\":15,\"project\":{\"id\":15,"
        "\"path_with_namespace\":\"g/r\",\"default_branch\":\"main\",\"web_url\":\"https:\\/\\/h/g/r\","
        "\"git_http_url\":\"https://h/g/r.git\",\"git_ssh_url\":\"git@h:g/r.git\"},"
        "\"repository\":{\"name\":\"r\",\"git_http_url\":\"https://h/g/r.git\"},"
        "\"commits\":[],\"total_commits_count\":4}", &hint), MEMFS_OK);
    assert_true(hint.is_change);
    assert_after(&hint, AFTER);
    assert_string_equal(hint.addresses[0], "https://h/g/r.git");
    assert_string_equal(hint.addresses[1], "git@h:g/r.git");
    assert_string_equal(hint.addresses[2], "https://h/g/r");
    assert_int_equal(read_as(HOST_GITLAB, "System Hook",
        "{\"event_name\":\"push\",\"ref\":\"refs/heads/main\"}", &hint), MEMFS_OK);
    assert_true(hint.is_change);
    assert_int_equal(read_as(HOST_GITLAB, "Tag Push Hook", "{\"ref\":\"refs/tags/v1\"}", &hint),
                     MEMFS_OK);
    assert_false(hint.is_change);
}

static void a_deleted_branch_is_a_change_without_a_tip(void **state)
{
    static const char push[] =
        "{\"ref\":\"refs/heads/main\",\"after\":\"0000000000000000000000000000000000000000\","
        "\"created\":false,\"deleted\":true,\"forced\":false,\"head_commit\":null}";
    webhook_hint hint;

    (void)state;
    assert_int_equal(read_as(HOST_GITHUB, "push", push, &hint), MEMFS_OK);
    assert_true(hint.is_change);
    assert_after(&hint, NULL);
    assert_int_equal(read_as(HOST_GITEA, "delete",
        "{\"ref\":\"main\",\"ref_type\":\"branch\",\"pusher_type\":\"user\","
        "\"repository\":{\"clone_url\":\"https://h/o/r.git\"},\"sender\":{}}", &hint), MEMFS_OK);
    assert_true(hint.is_change);
    assert_string_equal(hint.ref, "refs/heads/main");
    assert_after(&hint, NULL);
    assert_string_equal(hint.addresses[0], "https://h/o/r.git");
}

static void a_created_branch_is_a_change_with_its_tip(void **state)
{
    webhook_hint hint;

    (void)state;
    assert_int_equal(read_as(HOST_GITEA, "create",
        "{\"sha\":\"" AFTER "\",\"ref\":\"main\",\"ref_type\":\"branch\"}", &hint), MEMFS_OK);
    assert_true(hint.is_change);
    assert_string_equal(hint.ref, "refs/heads/main");
    assert_after(&hint, AFTER);
}

static void other_events_are_no_change(void **state)
{
    static const struct { host_kind kind; const char *event, *body; } cases[] = {
        { HOST_GITHUB, "ping", "{\"zen\":\"z\",\"hook_id\":1,\"hook\":{},\"repository\":{}}" },
        { HOST_GITHUB, "push", "{\"ref\":\"refs/tags/v1\",\"after\":\"" AFTER "\"}" },
        { HOST_GITHUB, "push", "{\"ref\":\"main\"}" },
        { HOST_GITHUB, "push", "{\"ref\":17}" },
        { HOST_GITHUB, "push", "{\"ref\":\"refs/heads/a\\u0000b\"}" },
        { HOST_GITHUB, "issues", "{\"ref\":\"refs/heads/main\"}" },
        { HOST_GITEA, "delete", "{\"ref\":\"v1\",\"ref_type\":\"tag\"}" },
        { HOST_GITEA, "delete", "{\"ref_type\":\"branch\"}" },
        { HOST_GITEA, "push", "{\"ref\":\"refs/heads/\"}" },
        { HOST_GITLAB, "push", "{\"ref\":\"refs/heads/main\"}" },
        { HOST_GITHUB, "push", " { } " },
    };
    webhook_hint hint;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(read_as(cases[i].kind, cases[i].event, cases[i].body, &hint), MEMFS_OK);
        assert_false(hint.is_change);
    }
}

static void what_is_no_json_object_is_refused(void **state)
{
    static const char *const bodies[] = {
        "", "[]", "null", "{", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{\"a\":1} x", "{\"a\":\"",
        "{\"a\":\"\\q\"}", "{\"a\":\"\\u12g4\"}", "{\"a\":[1,2", "payload={}", "{\"repository\":{]}",
        "{\"ref\":\"refs/heads/main\"",
    };
    webhook_hint hint;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++)
        assert_int_equal(read_as(HOST_GITHUB, "push", bodies[i], &hint), MEMFS_EINVALID);
}

static void escapes_are_decoded_and_long_texts_left_out(void **state)
{
    _cleanup_(buf_dispose) memfs_buf body = MEMFS_BUF_INIT(4096);
    webhook_hint hint;

    (void)state;
    assert_int_equal(read_as(HOST_GITHUB, "push",
        "{\"ref\":\"refs\\/heads\\/\\u00fc\\ud83d\\ude00\\ud83d\\n\","
        "\"repository\":{\"clone_url\":\"https://h/a\\u0026b\"}}", &hint), MEMFS_OK);
    assert_string_equal(hint.ref, "refs/heads/\xc3\xbc\xf0\x9f\x98\x80\xef\xbf\xbd\n");
    assert_string_equal(hint.addresses[0], "https://h/a&b");
    buf_puts(&body, "{\"ref\":\"refs/heads/");
    for (int i = 0; i < 1000; i++)
        buf_putc(&body, 'a');
    buf_puts(&body, "\"}");
    assert_int_equal(read_as(HOST_GITHUB, "push", body.ptr, &hint), MEMFS_OK);
    assert_false(hint.is_change);
}

static void deep_nesting_costs_nothing(void **state)
{
    _cleanup_(buf_dispose) memfs_buf body = MEMFS_BUF_INIT(4u << 20);
    webhook_hint hint;

    (void)state;
    buf_puts(&body, "{\"a\":");
    for (int i = 0; i < 1000000; i++)
        buf_putc(&body, '[');
    for (int i = 0; i < 1000000; i++)
        buf_putc(&body, ']');
    buf_puts(&body, ",\"ref\":\"refs/heads/main\"}");
    assert_int_equal(read_as(HOST_GITHUB, "push", body.ptr, &hint), MEMFS_OK);
    assert_true(hint.is_change);
}

/* ---- ids that were seen ---- */

static void an_id_is_seen_once_a_day(void **state)
{
    webhook_seen *s = webhook_seen_new(8);

    (void)state;
    assert_false(webhook_seen_check(s, "a", 0));
    assert_true(webhook_seen_check(s, "a", 10));
    assert_true(webhook_seen_check(s, "a", WEBHOOK_SEEN_MS - 1));
    assert_false(webhook_seen_check(s, "a", WEBHOOK_SEEN_MS));
    assert_true(webhook_seen_check(s, "a", WEBHOOK_SEEN_MS + 1));
    assert_false(webhook_seen_check(s, "", 0));
    assert_false(webhook_seen_check(s, "", 0));
    webhook_seen_free(s);
    webhook_seen_free(NULL);
}

/* The table against a model of it: exactly the last cap ids are known, whatever was dropped. */
static void the_table_keeps_exactly_the_last_ids(void **state)
{
    enum { CAP = 13, IDS = 40, ROUNDS = 20000 };
    webhook_seen *s = webhook_seen_new(CAP);
    int ring[CAP], next = 0;
    unsigned seed = 7;

    (void)state;
    for (int i = 0; i < CAP; i++)
        ring[i] = -1;
    for (int round = 0; round < ROUNDS; round++) {
        bool known = false;
        char id[16];
        int n;

        seed = seed * 1103515245u + 12345u;
        n = (int)(seed >> 16) % IDS;
        snprintf(id, sizeof(id), "id-%d", n);
        for (int i = 0; i < CAP; i++)
            known |= ring[i] == n;
        assert_int_equal(webhook_seen_check(s, id, 1), known);
        if (!known) {
            ring[next] = n;
            next = (next + 1) % CAP;
        }
    }
    webhook_seen_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_vector_of_githubs_documentation_passes),
        cmocka_unit_test(a_signature_of_gitea_is_bare_hex),
        cmocka_unit_test(forgejo_is_told_before_gitea_and_takes_its_signature),
        cmocka_unit_test(gitlabs_token_is_the_secret_itself),
        cmocka_unit_test(a_standard_signature_is_one_of_several_and_recent),
        cmocka_unit_test(with_a_signing_token_the_plain_token_proves_nothing),
        cmocka_unit_test(without_secrets_or_a_sender_nothing_is_proven),
        cmocka_unit_test(all_refusals_have_the_same_words),
        cmocka_unit_test(a_delivery_id_that_is_not_printable_is_none),
        cmocka_unit_test(a_form_is_signed_as_its_host_does_it),
        cmocka_unit_test(what_is_signed_here_is_proven_here),
        cmocka_unit_test(a_push_of_gitea_is_read),
        cmocka_unit_test(a_push_of_gitlab_is_read),
        cmocka_unit_test(a_deleted_branch_is_a_change_without_a_tip),
        cmocka_unit_test(a_created_branch_is_a_change_with_its_tip),
        cmocka_unit_test(other_events_are_no_change),
        cmocka_unit_test(what_is_no_json_object_is_refused),
        cmocka_unit_test(escapes_are_decoded_and_long_texts_left_out),
        cmocka_unit_test(deep_nesting_costs_nothing),
        cmocka_unit_test(an_id_is_seen_once_a_day),
        cmocka_unit_test(the_table_keeps_exactly_the_last_ids),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
