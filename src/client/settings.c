#include "client/settings.h"

#include "base/fs.h"
#include "base/mem.h"
#include "store/gitconfig.h"

#include <jansson.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * Every level is read as it is, into a table of levels by settings; who wins is decided once, from
 * the top.  So `memfs config` can show every level, and a lower one stays known: the Letta key is
 * paired with the base URL of its own level (backend.c).
 *
 * Cost: three small files, of which the checkout's alone is read again for each of many memories.
 */

#define LETTA_SETTINGS_MAX (4u * 1024 * 1024)
#define WARNINGS_MAX (16u * 1024)
#define SYSTEM_CONFIG "/etc/memfs/config"

#define VARIABLES(...) ((const char *const[]){ __VA_ARGS__, NULL })

const setting_row SETTING_ROWS[SETTING_N] = {
    [SETTING_HOME] = { "home", VARIABLES("MEMFS_HOME"), "~/.memfs",
                       .help = "the data folder of memfs", .kind = SETTING_KIND_PATH },
    [SETTING_BACKEND] = { "backend", VARIABLES("LETTABOT_MEMFS_BACKEND", "MEMFS_BACKEND"), "auto",
                          .help = "where the other side is: cloud, local, auto or none",
                          .kind = SETTING_KIND_CHOICE,
                          .choices = VARIABLES("cloud", "local", "auto", "none"), .in_files = true,
                          .in_checkout = true },
    [SETTING_ENABLED] = { "enabled", VARIABLES("LETTABOT_MEMFS"), "true",
                          .help = "false: memory is switched off, nothing is prepared or synced",
                          .kind = SETTING_KIND_BOOL, .in_files = true, .in_checkout = true },
    [SETTING_REMOTE] = { "remote", VARIABLES("LETTABOT_MEMFS_REMOTE", "MEMFS_REMOTE"), NULL,
                         .help = "git address of the remote; {agentId} is replaced",
                         .in_files = true, .in_checkout = true },
    [SETTING_GIT_URL] = { "git-url", VARIABLES("LETTA_MEMFS_GIT_URL"), NULL,
                          .help = "git address with {agentId}, when no remote is set",
                          .in_files = true },
    [SETTING_MEMFS_BASE_URL] = { "memfs-base-url", VARIABLES("LETTA_MEMFS_BASE_URL"), NULL,
                                 .help = "base of the memory's git addresses, <base>/v1/git/",
                                 .in_files = true, .in_letta = true },
    [SETTING_BASE_URL] = { "base-url", VARIABLES("LETTA_BASE_URL"), NULL,
                           .help = "the Letta server; also the memory's base when none is set",
                           .in_files = true, .in_letta = true },
    [SETTING_API_KEY] = { "api-key", VARIABLES("LETTA_API_KEY"), NULL, .is_secret = true,
                          .help = "the Letta key, shown to the Letta endpoint alone",
                          .in_letta = true },
    [SETTING_MEMFS_LOCAL] = { "memfs-local", VARIABLES("LETTA_MEMFS_LOCAL"), NULL,
                              .help = "exactly 1 lets the Letta client use another host" },
    [SETTING_LOCAL_BACKEND_DIR] = { "local-backend-dir", VARIABLES("LETTA_LOCAL_BACKEND_DIR"),
                                    "~/.letta/lc-local-backend",
                                    .help = "storage of letta-code's local backend",
                                    .kind = SETTING_KIND_PATH, .in_files = true },
    [SETTING_LETTA_DIR] = { "letta-dir", VARIABLES("MEMFS_LETTA_DIR"), "~/.letta",
                            .help = "the folder of the Letta client", .kind = SETTING_KIND_PATH,
                            .in_files = true },
    [SETTING_WAIT_MS] = { "wait", VARIABLES("MEMFS_WAIT"), "2",
                          .help = "seconds that apply gives the remote", .kind = SETTING_KIND_WAIT,
                          .least = 0, .most = 600 * 1000, .in_files = true, .in_checkout = true },
    [SETTING_REMOTE_TOKEN] = { "remote-token", VARIABLES("MEMFS_REMOTE_TOKEN"), NULL,
                               .is_secret = true, .help = "token or password of the remote" },
    [SETTING_REMOTE_TOKEN_FILE] = { "remote-token-file", VARIABLES("MEMFS_REMOTE_TOKEN_FILE"), NULL,
                                    .help = "file that holds it, readable by you alone",
                                    .kind = SETTING_KIND_PATH, .in_files = true },
    [SETTING_CA_FILE] = { "ca-file", VARIABLES("MEMFS_CA_FILE"), NULL,
                          .help = "certificates (PEM) that the remote is checked against",
                          .kind = SETTING_KIND_PATH, .in_files = true, .in_checkout = true },
    [SETTING_SSH_KEY] = { "ssh-key", VARIABLES("MEMFS_SSH_KEY"), NULL,
                          .help = "private key for ssh remotes", .kind = SETTING_KIND_PATH,
                          .in_files = true, .in_checkout = true },
    [SETTING_SSH_KNOWN_HOSTS] = { "ssh-known-hosts", VARIABLES("MEMFS_SSH_KNOWN_HOSTS"), NULL,
                                  .help = "host keys for ssh remotes", .kind = SETTING_KIND_PATH,
                                  .in_files = true, .in_checkout = true },
    [SETTING_ALLOW_HTTP] = { "allow-http", VARIABLES("MEMFS_ALLOW_HTTP"), NULL,
                             .help = "hosts (blank or comma between) that http:// may be used for",
                             .in_files = true },
    [SETTING_POLL_S] = { "poll", VARIABLES("MEMFS_POLL"), "60",
                         .help = "seconds between two looks at a remote in sync --watch",
                         .kind = SETTING_KIND_SECONDS, .least = 1, .most = 24 * 3600,
                         .in_files = true, .in_checkout = true },
};

typedef struct said {
    char *text;
    char *origin;
} said;

struct settings {
    said at[SETTING_N_LEVELS][SETTING_N];
    setting_level winner[SETTING_N]; /* SETTING_LEVEL_DEFAULT, with or without a text */
    uint64_t number[SETTING_N];
    memfs_buf warnings;
};

/* life cycle */

static settings *settings_new(void)
{
    settings *s = mem_alloc(sizeof(*s));

    s->warnings = (memfs_buf)MEMFS_BUF_INIT(WARNINGS_MAX);
    return s;
}

static void clear_said(said *at)
{
    free(at->text);
    free(at->origin);
    *at = (said){ NULL, NULL };
}

void settings_free(settings *s)
{
    if (s == NULL)
        return;
    for (size_t level = 0; level < SETTING_N_LEVELS; level++)
        for (size_t id = 0; id < SETTING_N; id++) {
            if (s->at[level][id].text != NULL && SETTING_ROWS[id].is_secret)
                explicit_bzero(s->at[level][id].text, strlen(s->at[level][id].text));
            clear_said(&s->at[level][id]);
        }
    buf_dispose(&s->warnings);
    free(s);
}

void settings_freep(settings **s)
{
    settings_free(*s);
    *s = NULL;
}

/* reading */

const char *setting_text(const settings *s, setting_id id)
{
    return s->at[s->winner[id]][id].text;
}

uint64_t setting_number(const settings *s, setting_id id)
{
    return s->number[id];
}

bool setting_is_set(const settings *s, setting_id id)
{
    return s->winner[id] != SETTING_LEVEL_DEFAULT;
}

const char *setting_origin(const settings *s, setting_id id)
{
    const said *at = &s->at[s->winner[id]][id];

    return at->text != NULL ? at->origin : "not set";
}

setting_level setting_level_of(const settings *s, setting_id id)
{
    return s->winner[id];
}

const char *setting_text_at(const settings *s, setting_id id, setting_level level)
{
    return s->at[level][id].text;
}

bool settings_is_off(const settings *s)
{
    return s->number[SETTING_ENABLED] == 0;
}

const char *settings_warnings(const settings *s)
{
    return s->warnings.ptr;
}

static bool is_variable_of(const setting_row *row, const char *name)
{
    for (const char *const *v = row->variables; *v != NULL; v++)
        if (strcmp(*v, name) == 0)
            return true;
    return false;
}

setting_id setting_by_name(const char *name)
{
    memfs_str bare = str_of(name);

    if (str_starts_with(bare, MEMFS_STR("memfs.")))
        bare = str_from(bare, 6);
    for (size_t id = 0; id < SETTING_N; id++)
        if (str_equal(bare, str_of(SETTING_ROWS[id].name)) ||
            is_variable_of(&SETTING_ROWS[id], name))
            return (setting_id)id;
    return SETTING_N;
}

/* forms */

/* "2", "0.25": seconds as milliseconds; digits past the third are dropped. */
static bool parse_wait(const char *text, uint64_t most_ms, uint64_t *ret_ms)
{
    memfs_str whole = str_of(text), fraction = { NULL, 0 };
    uint64_t s = 0, ms = 0, scale = 100;
    bool has_point = str_split(str_of(text), '.', &whole, &fraction);

    if (!str_to_u64(whole, most_ms / 1000, &s) || (has_point && fraction.len == 0))
        return false;
    for (size_t i = 0; i < fraction.len; i++, scale /= 10) {
        if (fraction.ptr[i] < '0' || fraction.ptr[i] > '9')
            return false;
        ms += scale * (uint64_t)(fraction.ptr[i] - '0');
    }
    *ret_ms = s * 1000 + ms;
    return *ret_ms <= most_ms;
}

static bool is_choice(const setting_row *row, const char *value)
{
    for (const char *const *c = row->choices; *c != NULL; c++)
        if (strcmp(*c, value) == 0)
            return true;
    return false;
}

/* NULL: it is of the right form; else what is expected, in out. */
static const char *expected_form(const setting_row *row, const char *value, uint64_t *ret_number,
                                 memfs_buf *out)
{
    switch (row->kind) {
    case SETTING_KIND_TEXT: return NULL;
    case SETTING_KIND_PATH:
        return value[0] == '/' || str_starts_with(str_of(value), MEMFS_STR("~/"))
                   ? NULL
                   : "a path from '/' or '~/'";
    case SETTING_KIND_BOOL:
        *ret_number = strcmp(value, "true") == 0;
        return *ret_number || strcmp(value, "false") == 0 ? NULL : "exactly 'true' or 'false'";
    case SETTING_KIND_CHOICE:
        if (is_choice(row, value))
            return NULL;
        buf_puts(out, "one of");
        for (const char *const *c = row->choices; *c != NULL; c++)
            buf_printf(out, "%s '%s'", c == row->choices ? "" : ",", *c);
        return out->ptr;
    case SETTING_KIND_WAIT:
        if (parse_wait(value, row->most, ret_number))
            return NULL;
        buf_printf(out, "seconds from %llu to %llu", (unsigned long long)row->least / 1000,
                   (unsigned long long)row->most / 1000);
        return out->ptr;
    case SETTING_KIND_SECONDS:
        if (str_to_u64(str_of(value), row->most, ret_number) && *ret_number >= row->least)
            return NULL;
        buf_printf(out, "whole seconds from %llu to %llu", (unsigned long long)row->least,
                   (unsigned long long)row->most);
        return out->ptr;
    }
    return NULL;
}

static memfs_code check_form(setting_id id, const char *value, const char *origin,
                             uint64_t *ret_number, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(512);
    const char *expected;

    *ret_number = 0;
    expected = expected_form(&SETTING_ROWS[id], value, ret_number, &out);
    if (expected == NULL)
        return MEMFS_OK;
    if (origin == NULL)
        return memfs_fail(err, MEMFS_EINVALID, "'%s' must be %s, not '%.100s'",
                          SETTING_ROWS[id].name, expected, value);
    return memfs_fail(err, MEMFS_EINVALID, "setting '%s' (%s) must be %s, not '%.100s'",
                      SETTING_ROWS[id].name, origin, expected, value);
}

memfs_code setting_check(setting_id id, const char *value, const char *origin, memfs_error *err)
{
    uint64_t number;

    return check_form(id, value, origin, &number, err);
}

/* levels */

/* The user's own folder; caller frees; NULL: nobody knows. */
static char *user_home(void)
{
    const char *from_env = getenv("HOME");
    struct passwd entry, *found = NULL;
    char room[4096];

    if (from_env != NULL && from_env[0] == '/')
        return mem_strdup(from_env);
    if (getpwuid_r(getuid(), &entry, room, sizeof(room), &found) == 0 && found != NULL)
        return mem_strdup(found->pw_dir);
    return NULL;
}

/* A path as it is kept: "~/" and, from the environment, the folder we are in put before it. */
static char *absolute_path(const char *value, setting_level level)
{
    _cleanup_(mem_freep) char *home = NULL, *here = NULL;

    if (str_starts_with(str_of(value), MEMFS_STR("~/"))) {
        home = user_home();
        return home != NULL ? mem_printf("%s%s", home, value + 1) : mem_strdup(value);
    }
    if (value[0] == '/' || level > SETTING_LEVEL_ENVIRONMENT)
        return mem_strdup(value);
    here = getcwd(NULL, 0);
    return here != NULL ? mem_printf("%s/%s", here, value) : mem_strdup(value);
}

static void say(settings *s, setting_level level, setting_id id, const char *value,
                const char *origin)
{
    said *at = &s->at[level][id];

    clear_said(at);
    if (value == NULL || value[0] == '\0')
        return;
    at->text = SETTING_ROWS[id].kind == SETTING_KIND_PATH ? absolute_path(value, level)
                                                          : mem_strdup(value);
    at->origin = mem_strdup(origin);
}

static void read_environment(settings *s)
{
    for (size_t id = 0; id < SETTING_N; id++)
        for (const char *const *v = SETTING_ROWS[id].variables; *v != NULL; v++) {
            _cleanup_(mem_freep) char *origin = NULL;
            const char *value = getenv(*v);

            if (value == NULL || value[0] == '\0')
                continue;
            origin = mem_printf("environment %s", *v);
            say(s, SETTING_LEVEL_ENVIRONMENT, (setting_id)id, value, origin);
            break;
        }
}

static void read_defaults(settings *s)
{
    for (size_t id = 0; id < SETTING_N; id++)
        say(s, SETTING_LEVEL_DEFAULT, (setting_id)id, SETTING_ROWS[id].default_text, "default");
}

typedef struct file_ctx {
    settings *s;
    setting_level level;
    const char *path, *origin;
} file_ctx;

static bool may_say(const setting_row *row, setting_level level)
{
    return level == SETTING_LEVEL_CHECKOUT ? row->in_checkout : row->in_files;
}

/* What the server alone reads, from the data folder's config; git tells names in lower case. */
static bool is_servers(const char *key)
{
    return strcmp(key, "memfs.database") == 0 || strcmp(key, "memfs.upstream") == 0 ||
           strcmp(key, "memfs.replicas") == 0 || strncmp(key, "memfs.letta", 11) == 0;
}

static bool take_config_value(const char *key, const char *value, void *arg)
{
    file_ctx *ctx = arg;
    setting_id id;

    if (!str_starts_with(str_of(key), MEMFS_STR("memfs.")))
        return true;
    id = setting_by_name(key);
    if (id == SETTING_N) {
        /* others' notes may lie in a checkout; the server reads its own from the same file */
        if (ctx->level != SETTING_LEVEL_CHECKOUT && !is_servers(key))
            buf_printf(&ctx->s->warnings, "%s: there is no setting '%s', ignoring\n", ctx->path,
                       key);
    } else if (!may_say(&SETTING_ROWS[id], ctx->level)) {
        buf_printf(&ctx->s->warnings, "%s: '%s' %s, ignoring\n", ctx->path, key,
                   SETTING_ROWS[id].is_secret
                       ? "is a secret and belongs into no config file ('memfs remote set')"
                       : "does not count here ('memfs config' shows where it does)");
    } else {
        say(ctx->s, ctx->level, id, value, ctx->origin);
    }
    return true;
}

static memfs_code read_config(settings *s, setting_level level, const char *path, memfs_error *err)
{
    _cleanup_(gitconfig_closep) gitconfig *config = NULL;
    _cleanup_(mem_freep) char *origin = mem_printf("file %s", path);
    file_ctx ctx = { s, level, path, origin };
    memfs_code rc;

    if (!fs_exists(path))
        return MEMFS_OK;
    rc = gitconfig_open(path, &config, err);
    if (rc < 0)
        return memfs_context(err, "config file '%s'", path);
    gitconfig_each(config, take_config_value, &ctx);
    return MEMFS_OK;
}

/* Another program's file: what is wrong with it is a warning. */
static void read_letta(settings *s, const char *letta_dir)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/settings.json", letta_dir);
    _cleanup_(mem_freep) char *origin = mem_printf("file %s", path);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(LETTA_SETTINGS_MAX);
    memfs_error err = MEMFS_ERROR_INIT;
    json_t *root, *env;

    if (!fs_exists(path))
        return;
    if (fs_read(path, &text, &err) < 0) {
        buf_printf(&s->warnings, "%s: %s, ignoring\n", path, err.msg);
        return;
    }
    root = json_loadb(text.ptr, text.len, 0, NULL);
    if (root == NULL)
        buf_printf(&s->warnings, "%s: is no JSON, ignoring\n", path);
    env = json_object_get(root, "env");
    for (size_t id = 0; id < SETTING_N; id++)
        if (SETTING_ROWS[id].in_letta)
            say(s, SETTING_LEVEL_LETTA, (setting_id)id,
                json_string_value(json_object_get(env, SETTING_ROWS[id].variables[0])), origin);
    json_decref(root);
    explicit_bzero(text.ptr, text.len);
}

/* deciding */

static void choose(settings *s, setting_id id)
{
    for (setting_level level = 0; level < SETTING_N_LEVELS; level++)
        if (s->at[level][id].text != NULL || level == SETTING_LEVEL_DEFAULT) {
            s->winner[id] = level;
            return;
        }
}

static memfs_code decide(settings *s, memfs_error *err)
{
    for (setting_id id = 0; id < SETTING_N; id++) {
        const char *text;
        memfs_code rc;

        choose(s, id);
        text = setting_text(s, id);
        if (text == NULL)
            continue;
        rc = check_form(id, text, setting_origin(s, id), &s->number[id], err);
        if (rc < 0)
            return rc;
    }
    return MEMFS_OK;
}

/* The storage of the local backend lies in the Letta folder, wherever that is. */
static void follow_letta_dir(settings *s)
{
    if (setting_is_set(s, SETTING_LETTA_DIR)) {
        _cleanup_(mem_freep) char *path =
            mem_printf("%s/lc-local-backend", setting_text(s, SETTING_LETTA_DIR));

        say(s, SETTING_LEVEL_DEFAULT, SETTING_LOCAL_BACKEND_DIR, path, "default");
    }
}

/* The folder that a file of git names ("gitdir: PATH", or commondir), from base; caller frees. */
static char *read_pointer(const char *path, const char *prefix, const char *base)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(8192);
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_str s;

    if (fs_read(path, &text, &err) < 0)
        return NULL;
    s = buf_str(&text);
    while (s.len > 0 && (s.ptr[s.len - 1] == '\n' || s.ptr[s.len - 1] == '\r'))
        s.len--;
    if (!str_starts_with(s, str_of(prefix)))
        return NULL;
    s = str_from(s, strlen(prefix));
    if (s.len == 0)
        return NULL;
    return s.ptr[0] == '/' ? mem_strndup(s.ptr, s.len)
                           : mem_printf("%s/%.*s", base, (int)s.len, s.ptr);
}

char *settings_checkout_config(const char *work_tree)
{
    _cleanup_(mem_freep) char *dot_git = mem_printf("%s/.git", work_tree);
    _cleanup_(mem_freep) char *bare_head = mem_printf("%s/HEAD", work_tree);
    _cleanup_(mem_freep) char *git_dir = NULL, *common = NULL, *pointer = NULL;

    if (fs_is_dir(dot_git))
        return mem_printf("%s/config", dot_git);
    if (!fs_exists(dot_git))
        return fs_exists(bare_head) ? mem_printf("%s/config", work_tree) : NULL;
    git_dir = read_pointer(dot_git, "gitdir: ", work_tree);
    if (git_dir == NULL)
        return NULL;
    pointer = mem_printf("%s/commondir", git_dir);
    common = read_pointer(pointer, "", git_dir);
    return mem_printf("%s/config", common != NULL ? common : git_dir);
}

char *settings_home_config(const settings *s)
{
    return mem_printf("%s/config", setting_text(s, SETTING_HOME));
}

static memfs_code read_checkout(settings *s, const char *work_tree, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = NULL;

    if (work_tree == NULL)
        return MEMFS_OK;
    path = settings_checkout_config(work_tree);
    return path != NULL ? read_config(s, SETTING_LEVEL_CHECKOUT, path, err) : MEMFS_OK;
}

static memfs_code read_files(settings *s, memfs_error *err)
{
    _cleanup_(mem_freep) char *home_config = NULL;
    const char *system_config = getenv("MEMFS_SYSTEM_CONFIG");
    memfs_code rc;

    choose(s, SETTING_HOME);
    if (setting_text(s, SETTING_HOME)[0] != '/')
        return memfs_fail(err, MEMFS_EINVALID,
                          "nobody knows your home folder: set HOME, or MEMFS_HOME to a full path");
    home_config = settings_home_config(s);
    rc = read_config(s, SETTING_LEVEL_HOME, home_config, err);
    if (rc < 0)
        return rc;
    rc = read_config(
        s, SETTING_LEVEL_SYSTEM,
        system_config != NULL && system_config[0] != '\0' ? system_config : SYSTEM_CONFIG, err);
    if (rc < 0)
        return rc;
    choose(s, SETTING_LETTA_DIR);
    read_letta(s, setting_text(s, SETTING_LETTA_DIR));
    follow_letta_dir(s);
    return MEMFS_OK;
}

memfs_code settings_load(const char *work_tree, const setting_override *overrides, size_t n,
                         settings **ret, memfs_error *err)
{
    _cleanup_(settings_freep) settings *s = settings_new();
    memfs_code rc;

    for (size_t i = 0; i < n; i++)
        say(s, SETTING_LEVEL_COMMAND, overrides[i].id, overrides[i].value, "command line");
    read_environment(s);
    read_defaults(s);
    rc = read_files(s, err);
    if (rc < 0)
        return rc;
    rc = read_checkout(s, work_tree, err);
    if (rc < 0)
        return rc;
    rc = decide(s, err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(s);
    return MEMFS_OK;
}

static settings *copy_levels(const settings *s, setting_level but)
{
    settings *copy = settings_new();

    for (setting_level level = 0; level < SETTING_N_LEVELS; level++)
        for (size_t id = 0; id < SETTING_N && level != but; id++)
            if (s->at[level][id].text != NULL)
                copy->at[level][id] = (said){ mem_strdup(s->at[level][id].text),
                                              mem_strdup(s->at[level][id].origin) };
    buf_add_str(&copy->warnings, buf_str(&s->warnings));
    return copy;
}

memfs_code settings_with_checkout(const settings *s, const char *work_tree, settings **ret,
                                  memfs_error *err)
{
    _cleanup_(settings_freep) settings *copy = copy_levels(s, SETTING_LEVEL_CHECKOUT);
    memfs_code rc;

    rc = read_checkout(copy, work_tree, err);
    if (rc == MEMFS_OK)
        rc = decide(copy, err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(copy);
    return MEMFS_OK;
}

memfs_code settings_without(const settings *s, setting_id id, setting_level level, settings **ret,
                            memfs_error *err)
{
    _cleanup_(settings_freep) settings *copy = copy_levels(s, SETTING_N_LEVELS);
    memfs_code rc;

    clear_said(&copy->at[level][id]);
    rc = decide(copy, err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(copy);
    return MEMFS_OK;
}

/* changing */

static memfs_code may_change(setting_id id, bool is_checkout, const char *value, memfs_error *err)
{
    const setting_row *row = &SETTING_ROWS[id];

    if (value == NULL)
        return MEMFS_OK; /* what does not belong there may always go */
    if (row->is_secret)
        return memfs_fail(err, MEMFS_EDENIED,
                          "'%s' is a secret and belongs into no config file: "
                          "set %s, or give it to 'memfs remote set --token-stdin'",
                          row->name, row->variables[0]);
    if (is_checkout ? !row->in_checkout : !row->in_files)
        return memfs_fail(err, MEMFS_EDENIED, "'%s' does not count in %s: set %s", row->name,
                          is_checkout ? "a checkout" : "a config file", row->variables[0]);
    if (value[0] == '\0')
        return memfs_fail(err, MEMFS_EINVALID, "'%s' needs a value; 'unset' removes it", row->name);
    return setting_check(id, value, NULL, err);
}

memfs_code settings_change(const settings *s, const char *work_tree, setting_id id,
                           const char *value, memfs_error *err)
{
    _cleanup_(mem_freep) char *key = mem_printf("memfs.%s", SETTING_ROWS[id].name);
    _cleanup_(mem_freep) char *path = NULL;
    const gitconfig_change change = { key, value };
    memfs_code rc = may_change(id, work_tree != NULL, value, err);

    if (rc < 0)
        return rc;
    path = work_tree != NULL ? settings_checkout_config(work_tree) : settings_home_config(s);
    if (path == NULL)
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no memory in '%s' yet", work_tree);
    if (work_tree == NULL && value != NULL) {
        rc = fs_mkdirs(setting_text(s, SETTING_HOME), err);
        if (rc < 0)
            return rc;
    }
    return gitconfig_apply(path, &change, 1, err);
}
