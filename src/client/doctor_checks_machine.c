#include "client/doctor_int.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/program.h"
#include "client/hub.h"
#include "client/prepare.h"
#include "store/git_child.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Checks of the machine: its git, our programs, settings, clock, and the data folder. */

#define DAY_S (24 * 3600)
#define YEAR_2024_S INT64_C(1704067200)
#define YEAR_2100_S INT64_C(4102444800)

void look_git_version(patient *w, faults *ret)
{
    _cleanup_(mem_freep) char *git = NULL;
    memfs_error err = MEMFS_ERROR_INIT;

    if (git_child_find(setting_text(w->s, SETTING_HOME), &git, &err) < 0)
        faults_add(ret, FINDING_PROBLEM, false, "git", "install git 2.36 or newer", "%s", err.msg);
}

/* programs and the folder of hooks */

static void look_hook_links(const char *folder, faults *ret)
{
    static const char *const needed[] = { "reference-transaction", "pre-commit", "post-commit" };

    for (size_t i = 0; i < ARRAY_LEN(needed); i++) {
        _cleanup_(mem_freep) char *path = mem_printf("%s/%s", folder, needed[i]);
        char target[4096];
        ssize_t n = readlink(path, target, sizeof(target) - 1);

        target[n > 0 ? n : 0] = '\0';
        if (n > 0 && access(path, X_OK) == 0 &&
            str_ends_with(str_of(target), MEMFS_STR("/" PROGRAM_HOOK)))
            continue;
        if (n < 0 && fs_exists(path))
            faults_add(ret, FINDING_WARNING, false, path, "move it away, then 'memfs doctor --fix'",
                       "the hook '%s' is a file of somebody else's: memfs' own does not run", path);
        else
            faults_add(ret, FINDING_WARNING, true, path, "'memfs doctor --fix' links it again",
                       "the hook '%s' does not lead to memfs-hook", path);
    }
}

void look_programs(patient *w, faults *ret)
{
    static const char *const names[] = { PROGRAM_MEMFS, PROGRAM_HOOK, PROGRAM_REMOTE_HELPER };
    _cleanup_(mem_freep) char *hooks = mem_printf("%s/hooks", setting_text(w->s, SETTING_HOME));

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        _cleanup_(mem_freep) char *path = NULL;
        memfs_error err = MEMFS_ERROR_INIT;

        if (program_path(names[i], &path, &err) < 0)
            faults_add(ret, FINDING_PROBLEM, false, names[i], "install memfs again", "%s", err.msg);
    }
    if (fs_is_dir(hooks)) /* else nothing was prepared yet */
        look_hook_links(hooks, ret);
}

memfs_code mend_programs(patient *w, const faults *found, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = NULL;

    (void)found;
    return prepare_hooks(w->s, &path, err);
}

/* settings */

void look_settings(patient *w, faults *ret)
{
    memfs_str rest = str_of(settings_warnings(w->s)), line;

    while (str_split(rest, '\n', &line, &rest)) {
        _cleanup_(mem_freep) char *text = mem_strndup(line.ptr, line.len);

        faults_add(ret, FINDING_WARNING, false, text, "put it right in that file", "%s", text);
    }
}

/* the data folder: secrets are for its owner alone */

static void look_mode(const char *path, mode_t forbidden, const char *why, faults *ret)
{
    struct stat st;

    if (lstat(path, &st) < 0 || S_ISLNK(st.st_mode))
        return;
    if (st.st_uid != geteuid())
        faults_add(ret, FINDING_PROBLEM, false, path, "give it back with chown",
                   "'%s' belongs to user %u, not to you", path, (unsigned)st.st_uid);
    else if ((st.st_mode & forbidden) != 0)
        faults_add(ret, FINDING_WARNING, true, path, "'memfs doctor --fix' closes it",
                   "'%s' may be %s by others (mode %03o)", path, why,
                   (unsigned)(st.st_mode & 0777));
}

void look_home(patient *w, faults *ret)
{
    const char *home = setting_text(w->s, SETTING_HOME);
    _cleanup_(mem_freep) char *secrets = mem_printf("%s/secrets", home);
    DIR *dir;
    const struct dirent *entry;

    look_mode(home, 0022, "changed", ret);
    look_mode(secrets, 0077, "read", ret);
    dir = opendir(secrets);
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        _cleanup_(mem_freep) char *path = mem_printf("%s/%s", secrets, entry->d_name);

        if (entry->d_name[0] != '.')
            look_mode(path, 0077, "read", ret);
    }
    if (dir != NULL)
        closedir(dir);
}

memfs_code mend_home(patient *w, const faults *found, memfs_error *err)
{
    (void)w;
    for (size_t i = 0; i < found->n; i++) {
        struct stat st;

        if (!found->at[i].can_mend || lstat(found->at[i].subject, &st) < 0)
            continue;
        if (chmod(found->at[i].subject, S_ISDIR(st.st_mode) ? 0700 : 0600) < 0)
            return memfs_fail_errno(err, "could not close '%s'", found->at[i].subject);
    }
    return MEMFS_OK;
}

/* setup git: its key and its program, both or neither */

void look_setup_git(patient *w, faults *ret)
{
    _cleanup_(hub_setup_dispose) hub_setup setup = { .base = NULL };
    memfs_error err = MEMFS_ERROR_INIT;

    if (hub_setup_look(w->s, &setup, &err) < 0)
        return; /* no global configuration, so it is not on */
    if (setup.is_on && setup.problem[0] != '\0')
        faults_add(ret, FINDING_PROBLEM, true, "setup",
                   "or 'memfs setup git --undo' takes it back: while it is half, clones fail", "%s",
                   setup.problem);
}

/* Whole again if it can be; what is missing in PATH only a person can put there. */
memfs_code mend_setup_git(patient *w, const faults *found, memfs_error *err)
{
    _cleanup_(hub_setup_dispose) hub_setup setup = { .base = NULL };

    (void)found;
    return hub_setup_git(w->s, false, &setup, err);
}

/* clocks */

void look_clock(patient *w, faults *ret)
{
    int64_t now_s = clock_wall_us() / 1000000;

    (void)w;
    if (now_s < YEAR_2024_S || now_s > YEAR_2100_S) {
        char iso[CLOCK_ISO_LEN];

        clock_iso(now_s * 1000000, iso);
        faults_add(ret, FINDING_PROBLEM, false, "clock",
                   "set it (timedatectl, ntp): certificates and "
                   "commit dates depend on it",
                   "the clock of this machine says %s", iso);
    }
}

/* A file from the future: the clock was ahead once, or is behind now. */
void look_file_times(patient *w, faults *ret)
{
    static const char *const names[] = { "HEAD", "index", "config", "refs/heads/main",
                                         "logs/HEAD" };
    int64_t now_s = clock_wall_us() / 1000000;

    for (size_t i = 0; w->git_dir != NULL && i < ARRAY_LEN(names); i++) {
        _cleanup_(mem_freep) char *path = mem_printf("%s/%s", w->git_dir, names[i]);
        char iso[CLOCK_ISO_LEN];
        struct stat st;

        if (lstat(path, &st) < 0 || st.st_mtim.tv_sec <= now_s + DAY_S)
            continue;
        clock_iso((int64_t)st.st_mtim.tv_sec * 1000000, iso);
        faults_add(
            ret, FINDING_WARNING, false, path, "check the clock; if it is right, 'touch' the file",
            "'%s' is from the future (%s): the clock was ahead then, or is behind now", path, iso);
    }
}
