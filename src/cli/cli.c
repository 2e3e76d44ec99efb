#include "cli/cli.h"

#include "base/clock.h"
#include "base/escape.h"
#include "base/json.h"
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

cli_exit exit_of_code(memfs_code code)
{
    switch (code) {
    case MEMFS_OK: return EXIT_GOOD;
    case MEMFS_EINVALID: return EXIT_USAGE;
    case MEMFS_ECONFLICT: return EXIT_CONFLICT_RECORDED;
    case MEMFS_EDENIED: return EXIT_REFUSED_BY_POLICY;
    case MEMFS_EUNAVAIL: return EXIT_BUSY;
    case MEMFS_ENOTFOUND:
    case MEMFS_EEXISTS:
    case MEMFS_ELIMIT:
    case MEMFS_ECORRUPT:
    case MEMFS_ENOSPACE:
    case MEMFS_EINTERNAL: return EXIT_FAILED;
    }
    return EXIT_FAILED;
}

/* Control bytes and anything that is not UTF-8 as \xNN; newlines and tabs stay if keep_lines. */
static void print_visible(FILE *out, memfs_str s, bool keep_lines)
{
    for (size_t pos = 0; pos < s.len;) {
        size_t start = pos;
        uint32_t cp = 0;
        bool is_valid = str_utf8_next(s, &pos, &cp);
        bool is_line = cp == '\n' || cp == '\t';
        bool is_control = escape_is_control(cp);

        if (is_valid && (!is_control || (is_line && keep_lines))) {
            fwrite(s.ptr + start, 1, pos - start, out);
            continue;
        }
        for (size_t i = start; i < pos; i++)
            fprintf(out, "\\x%02X", (unsigned char)s.ptr[i]);
    }
}

static void talk(const char *fmt, va_list ap)
{
    char text[1024];

    vsnprintf(text, sizeof(text), fmt, ap);
    fputs("memfs: ", stderr);
    print_visible(stderr, str_of(text), true);
    fputc('\n', stderr);
}

void cli_talk(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    talk(fmt, ap);
    va_end(ap);
}

cli_exit cli_fail(const memfs_error *e, const char *next_step)
{
    cli_progress_end();
    cli_talk("%s", e->msg);
    if (next_step != NULL)
        cli_talk("%s", next_step);
    return exit_of_code(e->code);
}

cli_exit cli_usage_error(const cli_usage *usage, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    talk(fmt, ap);
    va_end(ap);
    fprintf(stderr, "usage: memfs %s\n", usage->synopsis);
    return EXIT_USAGE;
}

static void print_help(const cli_usage *usage)
{
    printf("usage: memfs %s\n\n%s\n", usage->synopsis, usage->text);
    if (usage->n_options > 0)
        puts("\noptions:");
    for (size_t i = 0; i < usage->n_options; i++) {
        const cli_option *o = &usage->options[i];
        char left[64];

        snprintf(left, sizeof(left), "--%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
        printf("  %-22s %s\n", left, o->help);
    }
    printf("  %-22s %s\n", "--help", "show this");
    if (usage->examples != NULL)
        printf("\nexamples:\n%s", usage->examples);
}

/* Set by whoever gathers the commands' options; otherwise NULL. */
static cli_usage_fn gatherer;
static void *gatherer_ctx;

void cli_gather_usage(cli_usage_fn fn, void *ctx)
{
    gatherer = fn;
    gatherer_ctx = ctx;
}

static void option_json(const cli_option *o, json_writer *w)
{
    static const char *const kinds[] = {
        [CLI_FLAG] = "flag", [CLI_TEXT] = "text", [CLI_NUMBER] = "number", [CLI_TEXTS] = "text"
    };

    jw_object(w);
    jw_key_text(w, "name", o->name);
    jw_key_text(w, "kind", kinds[o->kind]);
    jw_key_text(w, "arg", o->arg);
    jw_key_text(w, "help", o->help);
    jw_object_end(w);
}

void cli_usage_json(const cli_usage *usage, memfs_buf *out)
{
    json_writer w = JSON_WRITER_INIT(out);
    memfs_str rest = str_of(usage->words), word;

    jw_object(&w);
    jw_key_text(&w, "synopsis", usage->synopsis);
    jw_key_text(&w, "text", usage->text);
    jw_key(&w, "options");
    jw_array(&w);
    for (size_t i = 0; i < usage->n_options; i++)
        option_json(&usage->options[i], &w);
    jw_array_end(&w);
    jw_key(&w, "words");
    jw_array(&w);
    while (rest.len > 0) {
        if (!str_split(rest, ' ', &word, &rest)) {
            word = rest;
            rest = MEMFS_STR("");
        }
        jw_str(&w, word);
    }
    jw_array_end(&w);
    jw_object_end(&w);
}

static void print_help_json(const cli_usage *usage)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    cli_usage_json(usage, &text);
    puts(text.ptr);
}

void cli_texts_dispose(cli_texts *t)
{
    free(t->at);
    *t = (cli_texts)CLI_TEXTS_INIT;
}

/* PostgreSQL's secrets may stand behind the '?', too. */
static void hide_secret_parts(char *word)
{
    char *host = strstr(word, "://"), *at;

    if (host == NULL)
        return;
    host += strlen("://");
    at = memchr(host, '@', strcspn(host, "/"));
    if (at != NULL)
        memset(host, 'x', (size_t)(at - host));
    at = strchr(host, '?');
    if (at != NULL)
        memset(at + 1, 'x', strlen(at + 1));
}

void cli_hide_secrets(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        hide_secret_parts(argv[i]);
}

static const cli_option *find_option(const cli_usage *usage, memfs_str name)
{
    for (size_t i = 0; i < usage->n_options; i++)
        if (str_equal(str_of(usage->options[i].name), name))
            return &usage->options[i];
    return NULL;
}

static bool set_option(const cli_usage *usage, const cli_option *o, const char *value,
                       cli_exit *ret_exit)
{
    if (o->kind == CLI_TEXT) {
        *(const char **)o->into = value;
        return true;
    }
    if (o->kind == CLI_TEXTS) {
        cli_texts *t = o->into;

        t->at = mem_realloc(t->at, t->n + 1, sizeof(*t->at));
        t->at[t->n++] = value;
        return true;
    }
    if (str_to_u64(str_of(value), INT64_MAX, o->into))
        return true;
    *ret_exit = cli_usage_error(usage, "--%s needs a number, not '%s'", o->name, value);
    return false;
}

/* One word that starts with "--"; *i moves on when the next word was its value. */
static bool parse_option(const cli_usage *usage, int argc, char **argv, int *i, cli_exit *ret_exit)
{
    memfs_str word = str_from(str_of(argv[*i]), 2), name = word, value = { NULL, 0 };
    bool has_value = str_split(word, '=', &name, &value);
    const cli_option *o = find_option(usage, name);

    if (str_equal(name, MEMFS_STR("help"))) {
        print_help(usage);
        *ret_exit = cli_finish(EXIT_GOOD);
        return false;
    }
    if (str_equal(name, MEMFS_STR("help-json"))) {
        print_help_json(usage);
        *ret_exit = cli_finish(EXIT_GOOD);
        return false;
    }
    if (o == NULL) {
        *ret_exit = cli_usage_error(usage, "unknown option '%s'", argv[*i]);
        return false;
    }
    if (o->kind == CLI_FLAG) {
        if (has_value) {
            *ret_exit = cli_usage_error(usage, "--%s takes no value", o->name);
            return false;
        }
        *(bool *)o->into = true;
        return true;
    }
    if (has_value)
        return set_option(usage, o, value.ptr, ret_exit);
    if (*i + 1 >= argc) {
        *ret_exit = cli_usage_error(usage, "--%s needs a value", o->name);
        return false;
    }
    *i += 1;
    return set_option(usage, o, argv[*i], ret_exit);
}

bool cli_parse(const cli_usage *usage, int argc, char **argv, const char **rest, size_t max_rest,
               size_t *ret_n_rest, cli_exit *ret_exit)
{
    bool only_rest = false;
    size_t n = 0;

    if (gatherer != NULL) {
        gatherer(usage, gatherer_ctx);
        *ret_exit = EXIT_GOOD;
        return false;
    }
    for (int i = 1; i < argc; i++) {
        memfs_str word = str_of(argv[i]);

        if (!only_rest && str_equal(word, MEMFS_STR("--"))) {
            only_rest = true;
        } else if (!only_rest && str_equal(word, MEMFS_STR("-h"))) {
            print_help(usage);
            *ret_exit = cli_finish(EXIT_GOOD);
            return false;
        } else if (!only_rest && str_starts_with(word, MEMFS_STR("--"))) {
            if (!parse_option(usage, argc, argv, &i, ret_exit))
                return false;
        } else if (!only_rest && word.len > 1 && word.ptr[0] == '-') {
            *ret_exit = cli_usage_error(usage, "unknown option '%s'", argv[i]);
            return false;
        } else if (n == max_rest) {
            *ret_exit = cli_usage_error(usage, "unexpected '%s'", argv[i]);
            return false;
        } else {
            rest[n++] = argv[i];
        }
    }
    *ret_n_rest = n;
    return true;
}

void cli_print_safe(memfs_str s)
{
    if (isatty(STDOUT_FILENO))
        print_visible(stdout, s, true);
    else
        fwrite(s.ptr, 1, s.len, stdout);
}

cli_exit cli_finish(cli_exit so_far)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return so_far;
    cli_talk("could not write the output");
    return so_far == EXIT_GOOD ? EXIT_FAILED : so_far;
}

/* The command line's own state: when the work began, and whether a line stands on the terminal. */
static int64_t progress_since_ms;
static bool progress_is_shown;

void cli_progress(const char *what, size_t done, size_t total, const char *at)
{
    int64_t now_ms = clock_mono_ms();

    if (progress_since_ms == 0)
        progress_since_ms = now_ms;
    if (!isatty(STDERR_FILENO) || now_ms - progress_since_ms < 1000)
        return;
    fprintf(stderr, "\r\033[K%s: %zu of %zu, %s", what, done, total, at);
    fflush(stderr);
    progress_is_shown = true;
}

void cli_progress_end(void)
{
    if (progress_is_shown)
        fputs("\r\033[K", stderr);
    progress_is_shown = false;
    progress_since_ms = 0;
}

char *cli_home(const char *option)
{
    const char *from_env = getenv("MEMFS_HOME");
    const char *user_home = getenv("HOME");

    if (option != NULL)
        return mem_strdup(option);
    if (from_env != NULL && from_env[0] != '\0')
        return mem_strdup(from_env);
    return mem_printf("%s/.memfs", user_home != NULL && user_home[0] != '\0' ? user_home : "/root");
}

char *cli_absolute(const char *path)
{
    _cleanup_(mem_freep) char *here = NULL;

    if (path[0] == '/')
        return mem_strdup(path);
    here = getcwd(NULL, 0);
    return mem_printf("%s/%s", here != NULL ? here : "", path);
}

const char *cli_agent(const char *option)
{
    const char *names[] = { "LETTA_AGENT_ID", "AGENT_ID" };

    if (option != NULL)
        return option;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const char *value = getenv(names[i]);

        if (value != NULL && value[0] != '\0')
            return value;
    }
    return NULL;
}
