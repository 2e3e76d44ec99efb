/*
 * doctor_int.h - what the files of doctor share: doctor.c (who is looked at, and how mending is
 * judged) and doctor_checks_*.c (the checks themselves).  Nobody else includes it.
 *
 * A check looks and lists faults; it changes nothing.  Its mend is called with the faults that it
 * listed, and then it looks once more: what is gone was mended, what is still there was not.  So no
 * mend has to report on itself, and none can claim what it did not do.
 */
#ifndef MEMFS_CLIENT_DOCTOR_INT_H
#define MEMFS_CLIENT_DOCTOR_INT_H

#include "client/backend.h"
#include "client/doctor.h"
#include "store/checkout.h"
#include "store/gitconfig.h"

/* Locks and half-finished work younger than this may be somebody's who is at it right now. */
#define DOCTOR_LOCK_IDLE_S 120
#define DOCTOR_WORK_IDLE_S 600

typedef struct fault {
    finding_level level;
    bool can_mend;
    char *subject; /* path or key: tells two faults of one check apart */
    char *what, *advice;
} fault;
typedef struct faults {
    fault *at;
    size_t n;
} faults;
#define FAULTS_INIT                                                                                \
    {                                                                                              \
        NULL, 0                                                                                    \
    }
void faults_dispose(faults *f);
/* advice may be NULL; no text may hold a secret. */
void faults_add(faults *f, finding_level level, bool can_mend, const char *subject,
                const char *advice, const char *fmt, ...) MEMFS_PRINTF(6, 7);

/* Who is looked at: the machine (p is NULL), or one memory. */
typedef struct patient {
    const settings *s;
    const place *p;
    char *git_dir;     /* of a memory; NULL: there is no .git folder */
    char *config_path; /* its config */
    gitconfig *config; /* NULL: cannot be read */
    checkout *c;       /* NULL: cannot be opened */
    bool has_state;
    checkout_state state;
    backend_choice choice;
    memfs_error error; /* why c is NULL */
} patient;
#define PATIENT_INIT                                                                               \
    {                                                                                              \
        .choice = BACKEND_CHOICE_INIT                                                              \
    }

typedef struct check {
    const char *name;
    bool of_machine;
    void (*look)(patient *w, faults *ret);
    /* NULL: nothing of it can be mended. */
    memfs_code (*mend)(patient *w, const faults *found, memfs_error *err);
} check;

/* doctor_checks_machine.c */
void look_git_version(patient *w, faults *ret);
void look_programs(patient *w, faults *ret);
memfs_code mend_programs(patient *w, const faults *found, memfs_error *err);
void look_settings(patient *w, faults *ret);
void look_home(patient *w, faults *ret);
memfs_code mend_home(patient *w, const faults *found, memfs_error *err);
void look_setup_git(patient *w, faults *ret);
memfs_code mend_setup_git(patient *w, const faults *found, memfs_error *err);
void look_clock(patient *w, faults *ret);
void look_file_times(patient *w, faults *ret);

/* doctor_checks_config.c */
void look_origin(patient *w, faults *ret);
memfs_code mend_origin(patient *w, const faults *found, memfs_error *err);
void look_token_in_url(patient *w, faults *ret);
memfs_code mend_token_in_url(patient *w, const faults *found, memfs_error *err);
void look_helpers(patient *w, faults *ret);
memfs_code mend_helpers(patient *w, const faults *found, memfs_error *err);
void look_key_in_config(patient *w, faults *ret);
memfs_code mend_key_in_config(patient *w, const faults *found, memfs_error *err);
void look_foreign_key(patient *w, faults *ret);
void look_hooks(patient *w, faults *ret);
void look_prepared(patient *w, faults *ret);
/* prepare.h does it all: hooks, driver, attributes, upstream, headers */
memfs_code mend_by_prepare(patient *w, const faults *found, memfs_error *err);

/* doctor_checks_repo.c */
void look_repository(patient *w, faults *ret);
memfs_code mend_repository(patient *w, const faults *found, memfs_error *err);
void look_locks(patient *w, faults *ret);
memfs_code mend_locks(patient *w, const faults *found, memfs_error *err);
void look_operation(patient *w, faults *ret);
memfs_code mend_operation(patient *w, const faults *found, memfs_error *err);
void look_genesis(patient *w, faults *ret);
void look_unrelated(patient *w, faults *ret);

/* doctor_checks_files.c */
void look_permissions(patient *w, faults *ret);
memfs_code mend_permissions(patient *w, const faults *found, memfs_error *err);
void look_encoding(patient *w, faults *ret);
memfs_code mend_encoding(patient *w, const faults *found, memfs_error *err);

/* doctor_keep.c: what has to go is kept in <git dir>/memfs/doctor/<time>-<name> */

/* Moves a file there; for what git must not meet any more. */
MEMFS_CHECK memfs_code doctor_keep_file(const patient *w, const char *path, memfs_error *err);
/* Copies text there (0600). */
MEMFS_CHECK memfs_code doctor_keep_text(const patient *w, const char *name, memfs_str text,
                                        memfs_error *err);
/*
 * A living process that works in the repository: its folder or an open file lies below the working
 * tree or the git dir.  0: none was seen.  Only processes that we may look at are; see the essay in
 * doctor_checks_repo.c.
 */
int doctor_process_in(const patient *w);
/* Seconds since the file or folder changed last, by its own time; at least 0. */
int64_t doctor_idle_s(const char *path);

#endif
