#include "client/doctor_int.h"

#include "base/fs.h"
#include "base/mem.h"
#include "client/prepare.h"
#include "store/git_env.h"
#include "store/merge.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * Checks of the repository itself: can it be opened, what did a killed git leave, what was begun
 * and not ended.
 *
 * A lock whose owner is gone stops every git after it; one whose owner lives must not be touched.
 * Git writes no owner into a lock, so two things must hold before one is moved away: it is older
 * than two minutes (git holds them for milliseconds, unless an editor is open), and no process that
 * we can see is at work in the repository: a git whose folder is in it, or anything with a file of
 * the git dir open.  Processes of other users, or of another container that shares the folder,
 * cannot be seen; the age is what speaks for them.  The lock is moved to .git/memfs/doctor/, not
 * removed: an index.lock may hold what was staged.
 */

#define MAX_LOCKS 100

/* opening */

void look_repository(patient *w, faults *ret)
{
    _cleanup_(mem_freep) char *dot_git = mem_printf("%s/.git", w->p->memory);
    _cleanup_(mem_freep) char *journal = mem_printf("%s/memfs/updating", dot_git);

    if (!fs_is_dir(w->p->memory))
        faults_add(ret, FINDING_PROBLEM, false, "folder",
                   "move it away; 'memfs apply' makes the folder", "'%s' is no folder",
                   w->p->memory);
    else if (!fs_exists(dot_git))
        faults_add(ret, FINDING_WARNING, true, "none",
                   "'memfs apply' or 'memfs doctor --fix' makes one "
                   "around the files",
                   "'%s' is no repository yet", w->p->memory);
    else if (w->git_dir == NULL)
        faults_add(ret, FINDING_PROBLEM, false, "file",
                   "the Letta client needs a folder there: clone "
                   "the memory anew",
                   "'%s' is a file", dot_git);
    else if (w->config == NULL || w->c == NULL)
        faults_add(
            ret, FINDING_PROBLEM, false, "closed",
            "put it right, or move .git away: 'memfs apply' "
            "then makes a new one around the files, and 'memfs sync' brings the history back",
            "the repository cannot be opened: %s", w->error.msg);
    else if (!w->has_state)
        faults_add(ret, FINDING_PROBLEM, false, "state", "'git status' and 'git fsck' say more",
                   "HEAD or the index of the repository cannot be read");
    else if (fs_exists(journal))
        faults_add(ret, FINDING_WARNING, true, "journal",
                   "'memfs sync' or 'memfs doctor --fix' finishes it",
                   "an update of the files was interrupted");
}

memfs_code mend_repository(patient *w, const faults *found, memfs_error *err)
{
    bool did;

    if (strcmp(found->at[0].subject, "none") == 0)
        return mend_by_prepare(w, found, err);
    return checkout_recover(w->c, &did, err);
}

/* who is at work */

static bool is_below(const char *path, const char *folder)
{
    size_t len = strlen(folder);

    return strncmp(path, folder, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

/* Where a link of /proc leads; false: we may not know. */
static bool leads(const char *link, char out[4096])
{
    ssize_t n = readlink(link, out, 4095);

    out[n > 0 ? n : 0] = '\0';
    return n > 0;
}

static bool is_git(int pid)
{
    _cleanup_(mem_freep) char *path = mem_printf("/proc/%d/comm", pid);
    _cleanup_(buf_dispose) memfs_buf comm = MEMFS_BUF_INIT(256);
    memfs_error ignored;

    return fs_read(path, &comm, &ignored) == MEMFS_OK &&
           str_starts_with(buf_str(&comm), MEMFS_STR("git"));
}

static bool has_file_open(int pid, const char *git_dir)
{
    _cleanup_(mem_freep) char *folder = mem_printf("/proc/%d/fd", pid);
    DIR *dir = opendir(folder);
    const struct dirent *entry;
    bool found = false;

    while (dir != NULL && !found && (entry = readdir(dir)) != NULL) {
        _cleanup_(mem_freep) char *link = mem_printf("%s/%s", folder, entry->d_name);
        char target[4096];

        found = leads(link, target) && is_below(target, git_dir);
    }
    if (dir != NULL)
        closedir(dir);
    return found;
}

static bool works_in(int pid, const char *memory, const char *git_dir)
{
    _cleanup_(mem_freep) char *link = mem_printf("/proc/%d/cwd", pid);
    char cwd[4096];

    return (leads(link, cwd) && is_below(cwd, memory) && is_git(pid)) ||
           has_file_open(pid, git_dir);
}

int doctor_process_in(const patient *w)
{
    _cleanup_(mem_freep) char *memory = realpath(w->p->memory, NULL);
    _cleanup_(mem_freep) char *git_dir = realpath(w->git_dir, NULL);
    DIR *dir = opendir("/proc");
    const struct dirent *entry;
    int found = 0;

    while (dir != NULL && memory != NULL && git_dir != NULL && found == 0 &&
           (entry = readdir(dir)) != NULL) {
        uint64_t pid;

        if (str_to_u64(str_of(entry->d_name), INT32_MAX, &pid) && (int)pid != getpid() &&
            works_in((int)pid, memory, git_dir))
            found = (int)pid;
    }
    if (dir != NULL)
        closedir(dir);
    return found;
}

/* locks */

typedef struct lock_list {
    char *at[MAX_LOCKS];
    size_t n;
} lock_list;

static void lock_list_dispose(lock_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->at[i]);
}

/* The client's own, which it waits for and breaks by itself. */
static bool is_lock_of_git(const char *name)
{
    return str_ends_with(str_of(name), MEMFS_STR(".lock")) &&
           !str_starts_with(str_of(name), MEMFS_STR("letta-"));
}

static void find_locks(const char *folder, int depth, lock_list *ret)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL && ret->n < MAX_LOCKS) {
        char *path;

        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        path = mem_printf("%s/%s", folder, entry->d_name);
        if (entry->d_type == DT_DIR && depth > 0) {
            find_locks(path, depth - 1, ret);
        } else if (entry->d_type == DT_REG && is_lock_of_git(entry->d_name)) {
            ret->at[ret->n++] = path;
            continue;
        }
        free(path);
    }
    if (dir != NULL)
        closedir(dir);
}

static void find_all_locks(const patient *w, lock_list *ret)
{
    _cleanup_(mem_freep) char *refs = mem_printf("%s/refs", w->git_dir);
    _cleanup_(mem_freep) char *worktrees = mem_printf("%s/worktrees", w->git_dir);

    find_locks(w->git_dir, 0, ret);
    find_locks(refs, 16, ret);
    find_locks(worktrees, 1, ret);
}

void look_locks(patient *w, faults *ret)
{
    _cleanup_(lock_list_dispose) lock_list locks = { .n = 0 };
    int pid;

    if (w->git_dir == NULL)
        return;
    find_all_locks(w, &locks);
    pid = locks.n > 0 ? doctor_process_in(w) : 0;
    for (size_t i = 0; i < locks.n; i++) {
        const char *name = locks.at[i] + strlen(w->git_dir) + 1;
        long long idle_s = (long long)doctor_idle_s(locks.at[i]);

        if (pid != 0)
            faults_add(ret, FINDING_NOTE, false, locks.at[i], "let it finish",
                       "'%s' is held: process %d is at work here", name, pid);
        else if (idle_s < DOCTOR_LOCK_IDLE_S)
            faults_add(ret, FINDING_WARNING, false, locks.at[i],
                       "look again when it is two minutes old",
                       "'%s' is %lld s old and nobody was seen who holds it", name, idle_s);
        else
            faults_add(
                ret, FINDING_PROBLEM, true, locks.at[i], "'memfs doctor --fix' moves it away",
                "'%s' is %lld min old and nobody holds it: git stops at it", name, idle_s / 60);
    }
}

memfs_code mend_locks(patient *w, const faults *found, memfs_error *err)
{
    for (size_t i = 0; i < found->n; i++) {
        memfs_code rc;

        if (!found->at[i].can_mend || !fs_exists(found->at[i].subject) ||
            doctor_idle_s(found->at[i].subject) < DOCTOR_LOCK_IDLE_S)
            continue; /* it went, or is another one by now */
        rc = doctor_keep_file(w, found->at[i].subject, err);
        if (rc < 0 && rc != MEMFS_ENOTFOUND)
            return rc;
    }
    return MEMFS_OK;
}

/* merges and rebases that nobody ends */

typedef struct operation_row {
    const char *words, *command; /* NULL: ending it is a person's business */
    const char *marks[3];
} operation_row;

static const operation_row OPERATIONS[] = {
    [CHECKOUT_CALM] = { NULL, NULL, { NULL } },
    [CHECKOUT_MERGING] = { "a merge", "merge", { "MERGE_HEAD" } },
    [CHECKOUT_REBASING] = { "a rebase", "rebase", { "rebase-merge", "rebase-apply" } },
    [CHECKOUT_PICKING] = { "a cherry-pick or revert", NULL, { "CHERRY_PICK_HEAD", "REVERT_HEAD" } },
    [CHECKOUT_BISECTING] = { "a bisect", NULL, { "BISECT_LOG" } },
};

/* How long has nothing of it, nor the index, changed? */
static int64_t operation_idle_s(const patient *w, const operation_row *o)
{
    _cleanup_(mem_freep) char *index = mem_printf("%s/index", w->git_dir);
    int64_t idle_s = doctor_idle_s(index);

    for (size_t i = 0; i < ARRAY_LEN(o->marks) && o->marks[i] != NULL; i++) {
        _cleanup_(mem_freep) char *mark = mem_printf("%s/%s", w->git_dir, o->marks[i]);
        int64_t mark_s = doctor_idle_s(mark);

        if (fs_exists(mark) && mark_s < idle_s)
            idle_s = mark_s;
    }
    return idle_s;
}

void look_operation(patient *w, faults *ret)
{
    const operation_row *o = &OPERATIONS[w->has_state ? w->state.operation : CHECKOUT_CALM];
    int64_t idle_s;
    bool is_idle;

    if (o->words == NULL)
        return;
    idle_s = operation_idle_s(w, o);
    is_idle = idle_s >= DOCTOR_WORK_IDLE_S && doctor_process_in(w) == 0;
    faults_add(
        ret, is_idle ? FINDING_WARNING : FINDING_NOTE, is_idle && o->command != NULL, "operation",
        o->command == NULL ? "'git status' says how to end it"
        : is_idle ? "end it, or 'memfs doctor --fix' takes it back: what was done is kept, and "
                    "'memfs sync' then merges without asking"
                  : "end it with git, or wait: 'memfs doctor --fix' takes it back when it has "
                    "rested for 10 minutes",
        "%s is in progress and has rested for %lld min: the checkout follows no sync", o->words,
        (long long)idle_s / 60);
}

static memfs_code run_git(const patient *w, const char *const *args, size_t n, memfs_buf *out,
                          memfs_error *err)
{
    _cleanup_(git_strings_dispose) git_strings argv = GIT_STRINGS_INIT;
    _cleanup_(git_env_dispose) git_env env = GIT_ENV_INIT;
    char *git = git_env_find();
    process_spec spec;

    if (git == NULL)
        return memfs_fail(err, MEMFS_EUNAVAIL, "git is not installed");
    git_strings_add(&argv, git);
    for (size_t i = 0; i < n; i++)
        git_strings_add(&argv, mem_strdup(args[i]));
    git_env_begin(&env, GIT_JOB_REPACK,
                  setting_text(w->s, SETTING_HOME)); /* our own data, no network */
    git_env_add(&env, "GIT_DIR=%s", w->git_dir);
    git_env_add(&env, "GIT_WORK_TREE=%s", w->p->memory);
    spec = git_env_spec(GIT_JOB_REPACK, &argv, &env, 0);
    spec.env = git_env_end(&env);
    spec.cwd = w->p->memory;
    return process_run(&spec, MEMFS_STR(""), out, NULL, 60000, err);
}

/* A file as it lies there, conflict markers and all; "system/a.md" is kept as "system%a.md". */
static memfs_code keep_changed_file(const patient *w, memfs_str name, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%.*s", w->p->memory, (int)name.len, name.ptr);
    _cleanup_(mem_freep) char *flat = mem_strndup(name.ptr, name.len);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(64u << 20);
    memfs_code rc = fs_read(path, &text, err);

    if (rc == MEMFS_ENOTFOUND)
        return MEMFS_OK; /* deleted */
    for (char *at = strchr(flat, '/'); at != NULL; at = strchr(at, '/'))
        *at = '%';
    return rc == MEMFS_OK ? doctor_keep_text(w, flat, buf_str(&text), err) : rc;
}

/* All that differs from HEAD; taking back touches nothing else. */
static memfs_code keep_changes(const patient *w, memfs_error *err)
{
    static const char *const args[] = { "diff", "--name-only", "--no-renames", "-z", "HEAD", "--" };
    _cleanup_(buf_dispose) memfs_buf names = MEMFS_BUF_INIT(4u << 20);
    memfs_str rest, name;
    memfs_code rc = run_git(w, args, ARRAY_LEN(args), &names, err);

    rest = buf_str(&names);
    while (rc == MEMFS_OK && str_split(rest, '\0', &name, &rest))
        rc = keep_changed_file(w, name, err);
    return rc;
}

/* Commits that only the unfinished rebase has: under the refs that 'memfs undo' knows. */
static memfs_code keep_head(const patient *w, memfs_error *err)
{
    static const memfs_oid none;
    _cleanup_(mem_freep) char *ref = NULL;
    char hex[MEMFS_OID_HEX + 1];
    bool is_reached = false;
    memfs_oid main_id;
    memfs_code rc;

    if (!w->state.has_head || checkout_ref(w->c, STORE_MAIN, &main_id, err) < 0)
        return MEMFS_OK;
    rc = repo_is_ancestor(checkout_repo(w->c), &w->state.head, &main_id, &is_reached, err);
    if (rc < 0 || is_reached)
        return rc;
    oid_hex(&w->state.head, hex);
    ref = mem_printf("refs/memfs/rescue/main/%s", hex);
    rc = checkout_ref_move(w->c, ref, &none, &w->state.head, "memfs doctor: of a rebase taken back",
                           err);
    return rc == MEMFS_ECONFLICT ? MEMFS_OK : rc; /* kept already */
}

memfs_code mend_operation(patient *w, const faults *found, memfs_error *err)
{
    const char *args[] = { OPERATIONS[w->state.operation].command, "--abort" };
    _cleanup_(buf_dispose) memfs_buf said = MEMFS_BUF_INIT(64 * 1024);
    memfs_code rc;

    (void)found;
    rc = keep_head(w, err);
    if (rc == MEMFS_OK)
        rc = keep_changes(w, err);
    return rc == MEMFS_OK ? run_git(w, args, ARRAY_LEN(args), &said, err) : rc;
}

/* history */

void look_genesis(patient *w, faults *ret)
{
    memfs_oid tip;
    memfs_error ignored;
    bool has_genesis = false;

    if (w->c == NULL || checkout_ref(w->c, STORE_MAIN, &tip, &ignored) < 0)
        return; /* look_prepared speaks of a branch without a commit */
    if (repo_is_ancestor(checkout_repo(w->c), &STORE_GENESIS, &tip, &has_genesis, &ignored) < 0)
        has_genesis = false;
    if (!has_genesis)
        faults_add(ret, FINDING_NOTE, false, "genesis",
                   "nothing to do: 'memfs sync' joins it with a remote "
                   "that has another beginning",
                   "the history does not begin with the commit that all memories of memfs share");
}

void look_unrelated(patient *w, faults *ret)
{
    merge_relation relation;
    memfs_oid tip, known;
    memfs_error ignored;

    if (w->c == NULL || checkout_ref(w->c, STORE_MAIN, &tip, &ignored) < 0 ||
        checkout_ref(w->c, "refs/remotes/origin/main", &known, &ignored) < 0)
        return;
    if (merge_relate(checkout_repo(w->c), &tip, &known, &relation, NULL, NULL, &ignored) ==
            MEMFS_OK &&
        relation == MERGE_UNRELATED)
        faults_add(
            ret, FINDING_WARNING, false, "unrelated", "'memfs sync' merges both and loses nothing",
            "main and the remote's main share no commit: the Letta client would reset main to "
            "the remote's");
}
