#include "client/assign.h"

#include "base/fs.h"
#include "base/mem.h"
#include "client/approved.h"
#include "client/prepare.h"
#include "store/gitconfig.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PLACEHOLDER "{agentId}"
/* stands for {agentId} while a template is taken apart; no agent's */
#define SAMPLE_ID "agent-00000000-0000-4000-8000-000000000000"

/* the address */

static memfs_code parse_address(const settings *s, const place *p, const char *text,
                                remote_url *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *expanded = NULL;
    memfs_code rc;

    if (p == NULL && strstr(text, PLACEHOLDER) == NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "an address for all agents needs " PLACEHOLDER
                          " in it; for one agent say --agent ID");
    rc = url_expand(text, p != NULL ? p->agent_id : SAMPLE_ID, &expanded, err);
    if (rc == MEMFS_OK)
        rc = url_parse(expanded, ret, err);
    if (rc == MEMFS_OK && !backend_may_use(s, ret))
        rc = memfs_fail(err, MEMFS_EDENIED,
                        "http:// would show secrets and memory to everybody on "
                        "the way: use https://, or allow it with 'memfs config set allow-http %s'",
                        ret->host);
    return rc;
}

/* The address as it is written down: without user info, and a template with its placeholder again.
 */
static char *address_at_rest(const place *p, const remote_url *url)
{
    const char *text = url->text != NULL ? url->text : "";
    const char *at = p == NULL ? strstr(text, SAMPLE_ID) : NULL;

    if (at == NULL)
        return mem_strdup(text);
    return mem_printf("%.*s" PLACEHOLDER "%s", (int)(at - text), text, at + strlen(SAMPLE_ID));
}

/* the secret */

static memfs_code keep_secret(const settings *s, const place *p, const remote_url *url,
                              const assignment *a, memfs_buf *notes, memfs_error *err)
{
    const char *secret = a->secret != NULL ? a->secret : url->secret;
    const char *username = a->username != NULL ? a->username : url->username;

    if (url->secret != NULL)
        buf_puts(notes, "the address held a secret: it is kept in secrets/ now, but your shell's "
                        "history may have it too; --token-stdin and --token-file leave no trace\n");
    if (secret == NULL)
        return MEMFS_OK;
    if (url->kind == URL_SSH || url->kind == URL_PATH)
        return memfs_fail(err, MEMFS_EINVALID,
                          "a token is for https; ssh uses keys (--ssh-key), "
                          "and a path needs none");
    return credential_store(setting_text(s, SETTING_HOME), url, p != NULL ? p->agent_id : NULL,
                            username, secret, err);
}

/* what is written */

static memfs_code write_settings(const settings *s, const place *p, const char *address,
                                 const assignment *a, memfs_error *err)
{
    const struct {
        setting_id id;
        const char *value;
    } rows[] = {
        { SETTING_CA_FILE, a->ca_file },
        { SETTING_SSH_KEY, a->ssh_key },
        { SETTING_SSH_KNOWN_HOSTS, a->ssh_known_hosts },
        { SETTING_REMOTE, address }, /* last: the remote is complete when it is there */
    };
    const char *work_tree = p != NULL ? p->memory : NULL;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        memfs_code rc = rows[i].value != NULL
                            ? settings_change(s, work_tree, rows[i].id, rows[i].value, err)
                            : MEMFS_OK;

        if (rc < 0)
            return rc;
    }
    return MEMFS_OK;
}

/* Origin, headers and hooks as the settings want them now. */
static memfs_code bring_up_to_date(const settings *s, const place *p, memfs_buf *notes,
                                   memfs_error *err)
{
    _cleanup_(backend_choice_dispose) backend_choice choice = BACKEND_CHOICE_INIT;
    _cleanup_(prepared_dispose) prepared done = PREPARED_INIT;
    memfs_code rc = backend_choose(s, p, &choice, err);

    if (rc == MEMFS_OK)
        rc = prepare(s, p, &choice, &done, err);
    if (rc < 0)
        return rc;
    buf_add_str(notes, buf_str(&done.notes));
    if (choice.warning[0] != '\0')
        buf_printf(notes, "%s\n", choice.warning);
    return MEMFS_OK;
}

static bool has_repository(const place *p)
{
    _cleanup_(mem_freep) char *config = settings_checkout_config(p->memory);

    return config != NULL;
}

static memfs_code make_memory(const settings *s, const place *p, memfs_buf *notes, memfs_error *err)
{
    _cleanup_(prepared_dispose) prepared done = PREPARED_INIT;
    memfs_code rc;

    if (has_repository(p))
        return MEMFS_OK;
    rc = prepare(s, p, NULL, &done, err);
    if (rc == MEMFS_OK)
        buf_printf(notes, "made the memory '%s'\n", p->memory);
    buf_add_str(notes, buf_str(&done.notes));
    return rc;
}

memfs_code assign_remote(const settings *s, const place *p, const assignment *a, memfs_buf *notes,
                         memfs_error *err)
{
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    _cleanup_(mem_freep) char *address = NULL;
    memfs_code rc = parse_address(s, p, a->url, &url, err);

    if (rc == MEMFS_OK)
        rc = keep_secret(s, p, &url, a, notes, err);
    if (rc == MEMFS_OK && p != NULL)
        rc = make_memory(s, p, notes, err);
    if (rc < 0)
        return rc;
    address = address_at_rest(p, &url);
    if (p != NULL)
        rc = approved_note(setting_text(s, SETTING_HOME), p->agent_id, &url, err);
    if (rc == MEMFS_OK)
        rc = write_settings(s, p, address, a, err);
    if (rc == MEMFS_OK && p != NULL)
        rc = bring_up_to_date(s, p, notes, err);
    return rc;
}

/* taking back */

/* Letta's address again in the place of the old one: prepare may always change that. */
static memfs_code reset_origin(const settings *s, const place *p, const remote_url *old,
                               memfs_error *err)
{
    _cleanup_(mem_freep) char *path = settings_checkout_config(p->memory);
    _cleanup_(mem_freep) char *header = mem_printf("http.%s/.extraHeader", old->origin);
    _cleanup_(mem_freep) char *letta =
        p->is_local_backend ? NULL : backend_letta_url(s, p->agent_id);
    _cleanup_(gitconfig_closep) gitconfig *config = NULL;
    gitconfig_change changes[3];
    const char *origin;
    size_t n = 0;
    memfs_code rc;

    if (path == NULL)
        return MEMFS_OK;
    rc = gitconfig_open(path, &config, err);
    if (rc < 0)
        return rc;
    origin = gitconfig_get(config, "remote.origin.url");
    if (origin != NULL && strcmp(origin, old->text) == 0) {
        changes[n++] = (gitconfig_change){ "remote.origin.url", letta };
        if (old->origin[0] != '\0')
            changes[n++] = (gitconfig_change){ header, NULL };
    }
    return n > 0 ? gitconfig_apply(path, changes, n, err) : MEMFS_OK;
}

/* What the old remote was known to have says nothing about the next one. */
static memfs_code forget_answers(const place *p, memfs_error *err)
{
    static const char tracking[] = "refs/remotes/origin/main";
    _cleanup_(checkout_closep) checkout *c = NULL;
    _cleanup_(mem_freep) char *note = NULL;
    memfs_oid known;
    memfs_code rc = checkout_open(p->memory, &c, err);

    if (rc < 0)
        return rc;
    note = checkout_note_path(c, "remote");
    unlink(note); /* one that stays names its address, and is not believed for another */
    rc = checkout_ref(c, tracking, &known, err);
    if (rc == MEMFS_OK)
        rc = checkout_ref_move(c, tracking, &known, NULL, "memfs: the remote was taken back", err);
    return rc == MEMFS_ENOTFOUND ? MEMFS_OK : rc;
}

/* Everything of a checkout that was at the old address goes back. */
static memfs_code leave_address(const settings *s, const place *p, const remote_url *old,
                                memfs_buf *notes, memfs_error *err)
{
    memfs_code rc = reset_origin(s, p, old, err);

    if (rc == MEMFS_OK)
        rc = forget_answers(p, err);
    return rc == MEMFS_OK ? bring_up_to_date(s, p, notes, err) : rc;
}

typedef struct leave_ctx {
    const settings *s;
    const char *template_text;
    memfs_buf *notes;
} leave_ctx;

/* Of an address for all: a checkout that has it as its origin. */
static memfs_code leave_template(const place *p, void *arg, memfs_error *err)
{
    _cleanup_(url_dispose) remote_url old = REMOTE_URL_INIT;
    _cleanup_(mem_freep) char *expanded = NULL, *origin = NULL;
    leave_ctx *ctx = arg;
    memfs_error ignored;

    if (url_expand(ctx->template_text, p->agent_id, &expanded, &ignored) < 0 ||
        url_parse(expanded, &old, &ignored) < 0)
        return MEMFS_OK;
    origin = backend_origin(p);
    if (origin == NULL || strcmp(origin, old.text) != 0)
        return MEMFS_OK;
    return leave_address(ctx->s, p, &old, ctx->notes, err);
}

memfs_code assign_forget(const settings *s, const place *p, memfs_buf *notes, memfs_error *err)
{
    const char *work_tree = p != NULL ? p->memory : NULL;
    const char *agent_id = p != NULL ? p->agent_id : NULL;
    _cleanup_(settings_freep) settings *own = NULL, *now = NULL;
    _cleanup_(url_dispose) remote_url old = REMOTE_URL_INIT;
    _cleanup_(mem_freep) char *expanded = NULL, *text = NULL;
    const char *said;
    memfs_code rc = settings_with_checkout(s, work_tree, &own, err);

    if (rc == MEMFS_OK && p != NULL)
        rc = approved_note(setting_text(s, SETTING_HOME), agent_id, NULL, err);
    if (rc < 0)
        return rc;
    said = setting_text_at(own, SETTING_REMOTE,
                           p != NULL ? SETTING_LEVEL_CHECKOUT : SETTING_LEVEL_HOME);
    if (said == NULL)
        return memfs_fail(err, MEMFS_ENOTFOUND, "no remote was set for %s",
                          p != NULL ? agent_id : "all agents");
    text = mem_strdup(said);
    if (url_expand(text, p != NULL ? agent_id : SAMPLE_ID, &expanded, err) == MEMFS_OK &&
        url_parse(expanded, &old, err) == MEMFS_OK)
        rc = credential_store(setting_text(s, SETTING_HOME), &old, agent_id, NULL, NULL, err);
    if (rc == MEMFS_OK)
        rc = settings_change(s, work_tree, SETTING_REMOTE, NULL, err);
    if (rc == MEMFS_OK)
        rc = settings_without(own, SETTING_REMOTE,
                              p != NULL ? SETTING_LEVEL_CHECKOUT : SETTING_LEVEL_HOME, &now, err);
    if (rc < 0)
        return rc;
    if (p != NULL)
        return old.text != NULL ? leave_address(now, p, &old, notes, err)
                                : bring_up_to_date(now, p, notes, err);
    return places_each(now, leave_template, &(leave_ctx){ now, text, notes }, err);
}
