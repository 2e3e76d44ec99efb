/*
 * T06: any text as an address.  What is taken holds nothing that git, ssh or a shell could read
 * as more than an address, is taken again in the same way, and shows no secret.
 */
#include "fuzz.h"

#include "remote/url.h"

#include <string.h>

#define WORD "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-._"

static void check_text(const remote_url *u)
{
    FUZZ_CHECK(u->text[0] != '-' && u->text[0] != '\0');
    FUZZ_CHECK(strncmp(u->text + strspn(u->text, WORD), "::", 2) != 0); /* a remote helper */
    for (const char *c = u->text; *c != '\0'; c++)
        FUZZ_CHECK((unsigned char)*c >= 0x20 && *c != 0x7F && *c != '\\');
    if (u->kind == URL_PATH) {
        FUZZ_CHECK(u->text[0] == '/' && u->origin[0] == '\0');
        return;
    }
    FUZZ_CHECK(u->host[0] != '-' && u->host[0] != '\0' && u->port != 0);
    for (const char *c = u->host; *c != '\0'; c++)
        FUZZ_CHECK(strchr("/@ '\"$`;&|<>%", *c) == NULL);
    if (u->kind != URL_SSH)
        FUZZ_CHECK(strncmp(u->text, u->origin, strlen(u->origin)) == 0 &&
                   u->text[strlen(u->origin)] == '/');
}

static void check_again(const remote_url *u)
{
    remote_url again = REMOTE_URL_INIT;
    memfs_error err;

    if (u->kind == URL_PATH && strlen(u->text) > 2000)
        return;
    FUZZ_CHECK(url_parse(u->text, &again, &err) == MEMFS_OK);
    FUZZ_CHECK(again.kind == u->kind && strcmp(again.text, u->text) == 0);
    FUZZ_CHECK(again.secret == NULL);
    FUZZ_CHECK(u->kind == URL_PATH || url_same_origin(u, &again));
    url_dispose(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char *text = malloc(n + 1), *expanded = NULL;
    remote_url u = REMOTE_URL_INIT;
    memfs_error err;

    memcpy(text, bytes, n);
    text[n] = '\0';
    if (url_parse(text, &u, &err) == MEMFS_OK) {
        check_text(&u);
        check_again(&u);
    } else {
        FUZZ_CHECK(u.text == NULL);
    }
    if (url_expand(text, "agent-9f7c2b1e-2d31-4c5a-8b1e-0123456789ab", &expanded, &err) == MEMFS_OK)
        FUZZ_CHECK(strpbrk(expanded, "{}") == NULL);
    url_dispose(&u);
    free(expanded);
    free(text);
    return 0;
}
