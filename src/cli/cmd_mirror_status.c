#include "cli/cmd_mirror.h"

#include "base/mem.h"
#include "cli/owner.h"

#include <stdio.h>

/*
 * A line an agent and remote, as it comes; what a person should know more of stands below it.  As
 * JSON: one object with the rows and the sums.
 */

#define EXIT_TROUBLE EXIT_FAILED

typedef struct shower {
    json_t *rows; /* NULL: lines */
    json_t *result;
    size_t n_shown;
} shower;

/* "-", "40 s", "12 min", "5 h", "3 d": coarse, as an age is read at a glance. */
static const char *span(const json_t *row, const char *key, char out[24])
{
    const json_t *value = json_object_get(row, key);
    long long s = json_integer_value(value);

    if (!json_is_integer(value))
        snprintf(out, 24, "-");
    else if (s < 120)
        snprintf(out, 24, "%lld s", s);
    else if (s < 7200)
        snprintf(out, 24, "%lld min", s / 60);
    else if (s < 172800)
        snprintf(out, 24, "%lld h", s / 3600);
    else
        snprintf(out, 24, "%lld d", s / 86400);
    return out;
}

static const char *count(const json_t *row, const char *key, char out[24])
{
    const json_t *value = json_object_get(row, key);

    if (json_is_integer(value))
        snprintf(out, 24, "%lld", (long long)json_integer_value(value));
    else
        snprintf(out, 24, "-");
    return out;
}

static void print_head(void)
{
    printf("%-42s  %-10s  %-11s  %5s  %6s  %8s  %10s  %8s\n", "AGENT", "REMOTE", "STATE", "AHEAD",
           "BEHIND", "PUSHED", "UNMIRRORED", "NEXT TRY");
}

static void print_below(const char *label, const char *text, const char *more)
{
    if (text[0] == '\0')
        return;
    printf("  %-8s  ", label);
    cli_print_safe(str_of(text));
    if (more[0] != '\0') {
        fputs(": ", stdout);
        cli_print_safe(str_of(more));
    }
    putchar('\n');
}

static void print_row(const json_t *row)
{
    char ahead[24], behind[24], pushed[24], unmirrored[24], next[24];

    printf("%-42s  %-10s  %-11s  %5s  %6s  %8s  %10s  %8s\n", mirror_text(row, "agent"),
           mirror_text(row, "remote"), mirror_text(row, "state"), count(row, "ahead", ahead),
           count(row, "behind", behind), span(row, "pushed_s", pushed),
           span(row, "unmirrored_s", unmirrored), span(row, "next_try_s", next));
    print_below("failure", mirror_text(row, "failure"), "");
    print_below("to do", mirror_text(row, "advice"), "");
    print_below("note", mirror_text(row, "note"), mirror_text(row, "note_text"));
    print_below("to do", mirror_text(row, "note_advice"), "");
}

static void on_line(const json_t *line, void *ctx)
{
    shower *s = ctx;
    json_t *row = json_object_get(line, "row"), *result = json_object_get(line, "result");

    if (result != NULL && s->result == NULL)
        s->result = json_incref(result);
    if (row == NULL)
        return;
    if (s->rows != NULL) {
        json_array_append(s->rows, row);
    } else {
        if (s->n_shown == 0)
            print_head();
        print_row(row);
    }
    s->n_shown++;
}

static long long sum(const shower *s, const char *key)
{
    return (long long)json_integer_value(json_object_get(s->result, key));
}

/* What a table without lines means. */
static void say_nothing_shown(const shower *s, const mirror_args *a)
{
    if (sum(s, "remotes") == 0)
        cli_talk("no remote is configured; 'memfs mirror add NAME URL' does it");
    else if (sum(s, "rows") == 0)
        cli_talk("no agent here has a remote yet; an agent's first push makes it known");
    else if (a->only_trouble)
        cli_talk("all %lld pairs of agent and remote are well", sum(s, "rows"));
}

static cli_exit report(const shower *s, const mirror_args *a)
{
    if (a->as_json) {
        json_object_set(s->result, "rows", s->rows);
        json_object_set_new(s->result, "shown", json_integer((json_int_t)s->n_shown));
        json_dumpf(s->result, stdout, JSON_COMPACT);
        putchar('\n');
    } else if (s->n_shown == 0) {
        say_nothing_shown(s, a);
    }
    return cli_finish(a->only_trouble && s->n_shown > 0 ? EXIT_TROUBLE : EXIT_GOOD);
}

cli_exit mirror_cmd_status(const mirror_args *a)
{
    _cleanup_(mem_freep) char *home = cli_home(a->home);
    _cleanup_(owner_closep) owner *o = NULL;
    shower s = { a->as_json ? json_array() : NULL, NULL, 0 };
    json_t *body = json_pack("{s:s, s:s, s:b, s:b}", "agent", a->agent ? a->agent : "", "remote",
                             a->remote ? a->remote : "", "trouble", a->only_trouble, "count",
                             a->should_count || a->agent != NULL);
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = owner_connect(home, &o, &err);
    cli_exit status;

    if (rc == MEMFS_OK)
        rc = owner_run(o, "/owner/mirror/status", body, on_line, &s, &err);
    status = rc == MEMFS_OK ? report(&s, a) : cli_fail(&err, NULL);
    json_decref(body);
    json_decref(s.rows);
    json_decref(s.result);
    return status;
}
