#include "client/doctor_int.h"

#include "base/escape.h"
#include "base/fs.h"
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const check CHECKS[] = {
    /* of the machine */
    { "git-version", true, look_git_version, NULL },
    { "programs", true, look_programs, mend_programs },
    { "settings", true, look_settings, NULL },
    { "home-permissions", true, look_home, mend_home },
    { "setup-git", true, look_setup_git, mend_setup_git },
    { "clock", true, look_clock, NULL },
    /* of each memory; what keeps the later ones from looking comes first */
    { "permissions", false, look_permissions, mend_permissions },
    { "repository", false, look_repository, mend_repository },
    { "stale-lock", false, look_locks, mend_locks },
    { "half-finished", false, look_operation, mend_operation },
    { "token-in-url", false, look_token_in_url, mend_token_in_url },
    { "wrong-origin", false, look_origin, mend_origin },
    { "inherited-helper", false, look_helpers, mend_helpers },
    { "key-in-config", false, look_key_in_config, mend_key_in_config },
    { "hooks", false, look_hooks, mend_by_prepare },
    { "prepared", false, look_prepared, mend_by_prepare },
    { "letta-key", false, look_foreign_key, mend_by_prepare },
    { "genesis", false, look_genesis, NULL },
    { "unrelated", false, look_unrelated, NULL },
    { "encoding", false, look_encoding, mend_encoding },
    { "file-times", false, look_file_times, NULL },
};

/* faults */

void faults_dispose(faults *f)
{
    for (size_t i = 0; i < f->n; i++) {
        free(f->at[i].subject);
        free(f->at[i].what);
        free(f->at[i].advice);
    }
    free(f->at);
    *f = (faults)FAULTS_INIT;
}

/* Names of files and values of others' configuration are part of it: one line, no control bytes. */
static char *safe_line(const char *text)
{
    _cleanup_(buf_dispose) memfs_buf safe = MEMFS_BUF_INIT(64 * 1024);

    url_redact(&safe, str_of(text));
    return mem_strdup(safe.ptr);
}

void faults_add(faults *f, finding_level level, bool can_mend, const char *subject,
                const char *advice, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    f->at = mem_realloc(f->at, f->n + 1, sizeof(*f->at));
    f->at[f->n++] = (fault){ level, can_mend, mem_strdup(subject), safe_line(text),
                             safe_line(advice != NULL ? advice : "") };
}

/* patients */

static void patient_dispose(patient *w)
{
    checkout_close(w->c);
    gitconfig_close(w->config);
    backend_choice_dispose(&w->choice);
    free(w->git_dir);
    free(w->config_path);
    *w = (patient)PATIENT_INIT;
}

/* As far as it can be looked at; what cannot is left NULL, and look_repository says why. */
static void examine(patient *w, const settings *s, const place *p)
{
    memfs_error ignored = MEMFS_ERROR_INIT;

    patient_dispose(w);
    w->s = s;
    w->p = p;
    if (p == NULL)
        return;
    w->git_dir = mem_printf("%s/.git", p->memory);
    if (!fs_is_dir(w->git_dir)) {
        free(w->git_dir);
        w->git_dir = NULL;
        return;
    }
    w->config_path = mem_printf("%s/config", w->git_dir);
    if (gitconfig_open(w->config_path, &w->config, &w->error) < 0)
        w->config = NULL;
    if (checkout_open(p->memory, &w->c, &w->error) < 0)
        w->c = NULL;
    w->has_state = w->c != NULL && checkout_inspect(w->c, &w->state, &ignored) == MEMFS_OK;
    if (backend_choose(s, p, &w->choice, &ignored) < 0)
        w->choice = (backend_choice)BACKEND_CHOICE_INIT;
}

/* running */

typedef struct doctor {
    const settings *s;
    bool is_mending;
    finding_fn fn;
    void *ctx;
    size_t n_left;
} doctor;

static bool is_among(const faults *f, const fault *one)
{
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->at[i].subject, one->subject) == 0)
            return true;
    return false;
}

static void tell(doctor *d, const patient *w, const check *c, const fault *f, bool was_mended,
                 const char *failure)
{
    _cleanup_(mem_freep) char *advice =
        failure != NULL ? safe_line(failure) : mem_strdup(f->advice);
    const finding told = {
        .check = c->name,
        .level = f->level,
        .agent_id = w->p != NULL ? w->p->agent_id : NULL,
        .what = f->what,
        .advice = advice,
        .can_mend = f->can_mend,
        .was_mended = was_mended,
    };

    d->fn(&told, d->ctx);
    if (!was_mended && f->level >= FINDING_WARNING)
        d->n_left++;
}

static bool wants_mending(const doctor *d, const check *c, const faults *found)
{
    if (!d->is_mending || c->mend == NULL)
        return false;
    for (size_t i = 0; i < found->n; i++)
        if (found->at[i].can_mend)
            return true;
    return false;
}

static void run_check(doctor *d, patient *w, const check *c)
{
    _cleanup_(faults_dispose) faults before = FAULTS_INIT, after = FAULTS_INIT;
    _cleanup_(mem_freep) char *failure = NULL;
    memfs_error err = MEMFS_ERROR_INIT;

    c->look(w, &before);
    if (!wants_mending(d, c, &before)) {
        for (size_t i = 0; i < before.n; i++)
            tell(d, w, c, &before.at[i], false, NULL);
        return;
    }
    if (c->mend(w, &before, &err) < 0)
        failure = mem_printf("could not be mended: %s", err.msg);
    examine(w, d->s, w->p);
    c->look(w, &after);
    for (size_t i = 0; i < before.n; i++)
        if (!is_among(&after, &before.at[i]))
            tell(d, w, c, &before.at[i], true, NULL);
    for (size_t i = 0; i < after.n; i++)
        tell(d, w, c, &after.at[i], false, after.at[i].can_mend ? failure : NULL);
}

static void run_checks(doctor *d, const place *p)
{
    _cleanup_(patient_dispose) patient w = PATIENT_INIT;

    examine(&w, d->s, p);
    for (size_t i = 0; i < ARRAY_LEN(CHECKS); i++)
        if (CHECKS[i].of_machine == (p == NULL))
            run_check(d, &w, &CHECKS[i]);
}

static memfs_code run_place(const place *p, void *ctx, memfs_error *err)
{
    (void)err;
    run_checks(ctx, p);
    return MEMFS_OK;
}

memfs_code doctor_run(const settings *s, const char *only, bool is_mending, finding_fn fn,
                      void *ctx, size_t *ret_n_left, memfs_error *err)
{
    _cleanup_(place_dispose) place p = PLACE_INIT;
    doctor d = { s, is_mending, fn, ctx, 0 };
    memfs_code rc = checkout_library(err);

    if (rc == MEMFS_OK && only != NULL)
        rc = place_of(s, only, &p, err);
    if (rc < 0)
        return rc;
    if (only != NULL && !fs_exists(p.memory))
        return memfs_fail(err, MEMFS_ENOTFOUND, "'%s' has no memory here", only);
    run_checks(&d, NULL);
    if (only != NULL)
        run_checks(&d, &p);
    else
        rc = places_each(s, run_place, &d, err);
    *ret_n_left = d.n_left;
    return rc;
}
