#include "remote/host_int.h"

#include "base/escape.h"
#include "base/mem.h"

#include <stdio.h>
#include <strings.h>

/* What the answers of git hosts look like, as functions of their bytes. */

const char *host_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL ? text : "";
}

static void add_words(memfs_buf *out, const char *text)
{
    if (text[0] == '\0' || strstr(out->ptr, text) != NULL)
        return;
    buf_puts(out, out->len > 0 ? ": " : "");
    buf_puts(out, text);
}

/* GitLab's messages are objects of lists: {"path":["has already been taken"]}. */
static void add_value(memfs_buf *out, const json_t *value)
{
    _cleanup_(mem_freep) char *text = NULL;

    if (json_is_string(value))
        add_words(out, json_string_value(value));
    else if (json_is_object(value) || json_is_array(value))
        add_words(out, text = json_dumps(value, JSON_COMPACT));
}

void host_words(const json_t *json, memfs_buf *out)
{
    const json_t *errors = json_object_get(json, "errors"), *row;
    size_t i;

    add_value(out, json_object_get(json, "message"));
    add_value(out, json_object_get(json, "error_description"));
    if (out->len == 0)
        add_value(out, json_object_get(json, "error"));
    json_array_foreach(errors, i, row)
        add_words(out, json_is_string(row) ? json_string_value(row) : host_text(row, "message"));
}

/* Up to the bracket's end or the first comma: any one of them is enough. */
bool host_gitea_scope(const char *said, char *out, size_t size)
{
    const char *at = strstr(said, "required"), *end;

    at = at != NULL ? strchr(at, '[') : NULL;
    if (at == NULL)
        return false;
    at++;
    end = at + strcspn(at, "], ");
    if (end == at || *end == '\0')
        return false;
    escape_text(str_make(at, (size_t)(end - at)), out, size);
    return true;
}

static bool next_word(memfs_str *rest, memfs_str *ret)
{
    size_t n = 0;

    while (rest->len > 0 && strchr(", ", rest->ptr[0]) != NULL)
        *rest = str_from(*rest, 1);
    while (n < rest->len && strchr(", ", rest->ptr[n]) == NULL)
        n++;
    *ret = str_make(rest->ptr, n);
    *rest = str_from(*rest, n);
    return n > 0;
}

bool host_has_any(const char *have, const char *wanted)
{
    memfs_str wanted_rest = str_of(wanted), want, have_rest, word;

    while (next_word(&wanted_rest, &want))
        for (have_rest = str_of(have); next_word(&have_rest, &word);)
            if (str_equal(word, want))
                return true;
    return false;
}

/*
 * GitHub's only page has no Link, Gitea's has a total instead, GitLab's an empty X-Next-Page.  A
 * proxy may strip all of that: then a page that is not empty is followed by another question.
 */
bool host_has_more(const host_talk *k, size_t n_page, size_t n_so_far)
{
    if (n_page == 0)
        return false;
    if (k->has_next_page)
        return k->next_page[0] != '\0';
    if (k->has_link)
        return k->has_next_link;
    if (k->has_total)
        return n_so_far < k->total;
    return k->h->kind != HOST_GITHUB;
}

/* ---- headers ---- */

static bool is_named(memfs_str name, const char *wanted)
{
    return name.len == strlen(wanted) && strncasecmp(name.ptr, wanted, name.len) == 0;
}

static bool read_number(memfs_str value, int64_t *ret)
{
    uint64_t n;

    if (!str_to_u64(value, INT64_MAX / 2, &n))
        return false;
    *ret = (int64_t)n;
    return true;
}

static void read_paging(host_talk *k, memfs_str name, memfs_str value)
{
    if (is_named(name, "link")) {
        k->has_link = true;
        k->has_next_link = memmem(value.ptr, value.len, "rel=\"next\"", 10) != NULL;
    } else if (is_named(name, "x-total-count")) {
        k->has_total = str_to_u64(value, UINT32_MAX, &k->total);
    } else if (is_named(name, "x-next-page")) {
        k->has_next_page = true;
        escape_text(value, k->next_page, sizeof(k->next_page));
    }
}

static void read_limits(host_talk *k, memfs_str name, memfs_str value)
{
    int64_t left = 0;

    if (is_named(name, "x-ratelimit-remaining") || is_named(name, "ratelimit-remaining"))
        k->has_no_calls_left = read_number(value, &left) && left == 0;
    else if (is_named(name, "x-ratelimit-reset") || is_named(name, "ratelimit-reset"))
        (void)read_number(value, &k->reset_at_s);
}

void host_read_header(memfs_str name, memfs_str value, void *talk)
{
    host_talk *k = talk;
    const struct {
        const char *name;
        char *into;
        size_t size;
    } texts[] = {
        { "x-oauth-scopes", k->scopes, sizeof(k->scopes) },
        { "x-accepted-oauth-scopes", k->wanted_scopes, sizeof(k->wanted_scopes) },
        { "x-accepted-github-permissions", k->wanted_rights, sizeof(k->wanted_rights) },
        { "github-authentication-token-expiration", k->expires, sizeof(k->expires) },
        { "location", k->moved_to, sizeof(k->moved_to) },
    };

    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        if (is_named(name, texts[i].name))
            escape_text(value, texts[i].into, texts[i].size);
    k->has_scopes = k->has_scopes || is_named(name, "x-oauth-scopes");
    read_paging(k, name, value);
    read_limits(k, name, value);
}

/* ---- times ---- */

static bool read_digits(const char **at, size_t n, int *ret)
{
    *ret = 0;
    for (size_t i = 0; i < n; i++) {
        if ((*at)[i] < '0' || (*at)[i] > '9')
            return false;
        *ret = *ret * 10 + ((*at)[i] - '0');
    }
    *at += n;
    return true;
}

/* Days since 1970 of a day in the calendar that we have (March is the first month of its year). */
static int64_t days_of(int year, int month, int day)
{
    int64_t y = month <= 2 ? year - 1 : year, era = y / 400, of_era = y - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static bool read_time(const char *at, int *ret_s)
{
    int hour, minute, second;

    if (*at != ' ' && *at != 'T')
        return false;
    at++;
    if (!read_digits(&at, 2, &hour) || *at++ != ':' || !read_digits(&at, 2, &minute) ||
        *at++ != ':' || !read_digits(&at, 2, &second))
        return false;
    *ret_s = hour * 3600 + minute * 60 + second;
    return hour < 24 && minute < 60 && second <= 60;
}

int64_t host_date(const char *text)
{
    int year, month, day, seconds = 0;

    if (!read_digits(&text, 4, &year) || *text++ != '-' || !read_digits(&text, 2, &month) ||
        *text++ != '-' || !read_digits(&text, 2, &day))
        return 0;
    if (year < 1970 || month < 1 || month > 12 || day < 1 || day > 31)
        return 0;
    if (*text != '\0' && !read_time(text, &seconds))
        return 0;
    return days_of(year, month, day) * 86400 + seconds;
}

int64_t host_wait_s(const host_talk *k, int64_t now_s)
{
    int64_t wait_s = k->retry_after_s;

    if (wait_s == 0 && k->reset_at_s > 0 && k->has_no_calls_left) {
        wait_s = k->reset_at_s - (k->date_s > 0 ? k->date_s : now_s);
        wait_s = wait_s > 0 ? wait_s : 1; /* it was over while the answer travelled */
    }
    return wait_s < HOST_MAX_WAIT_S ? wait_s : HOST_MAX_WAIT_S;
}

bool host_moved_path(const char *location, char *out, size_t size)
{
    const char *at = strstr(location, "/repositories/");
    size_t n;

    if (at == NULL)
        return false;
    n = strspn(at + 14, "0123456789");
    if (n == 0 || at[14 + n] != '\0' || n > 18)
        return false;
    snprintf(out, size, "%s", at);
    return true;
}
