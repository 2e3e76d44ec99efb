/*
 * rooms.c - times work inside memfs's own libraries, without a server or a child in the way.
 *
 *     bench_rooms rebuild  HOME ROUNDS AGENT           rows of the whole memory, from nothing
 *     bench_rooms change   HOME ROUNDS AGENT=PATH...   one changed file: ref move -> visible block
 *     bench_rooms register HOME COUNT                  makes agents known, each with its repository
 *
 * The home must not be served at the same time.  `change` takes the agents in turn, round by round,
 * so that what the machine does meanwhile hits all of them; the commit of each round is made before
 * its clock starts, and with each round a plain fsync of a 4 KiB append is timed beside it.
 *
 * Each round prints one line of JSON; times are in microseconds.
 */
#include "base/clock.h"
#include "base/hash.h"
#include "memory/ids.h"
#include "sync/home.h"
#include "sync/materialise.h"

#include <fcntl.h>
#include <git2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void die(const memfs_error *err, const char *what)
{
    fprintf(stderr, "bench_rooms: %s: %s\n", what, err->msg);
    exit(1);
}

static void die_git(const char *what)
{
    const git_error *e = git_error_last();

    fprintf(stderr, "bench_rooms: %s: %s\n", what, e ? e->message : "failed");
    exit(1);
}

static void on_alarm(const char *event, const char *id, const char *text, void *ctx)
{
    (void)ctx;
    fprintf(stderr, "bench_rooms: alarm %s %s: %s\n", event, id, text);
}

static home *home_of(const char *path)
{
    home_options options = HOME_OPTIONS_INIT;
    memfs_error err = MEMFS_ERROR_INIT;
    home *h = NULL;

    options.path = path;
    options.alarm = on_alarm;
    if (home_open(&options, &h, &err) < 0)
        die(&err, "home");
    return h;
}

static agent *agent_of(home *h, const char *id)
{
    memfs_error err = MEMFS_ERROR_INIT;
    agent *a = NULL;

    if (home_agent(h, str_of(id), &a, &err) < 0)
        die(&err, id);
    return a;
}

/* ---- rebuild ---- */

static int rebuild(int argc, char **argv)
{
    home *h;
    agent *a;
    int rounds;

    if (argc != 3)
        return 2;
    h = home_of(argv[0]);
    rounds = (int)strtol(argv[1], NULL, 10);
    a = agent_of(h, argv[2]);
    for (int i = 0; i < rounds; i++) {
        memfs_error err = MEMFS_ERROR_INIT;
        materialise_result done;
        int64_t start = clock_mono_us(), us;

        agent_lock(a);
        if (materialise_rebuild(h, a, &done, &err) < 0)
            die(&err, "rebuild");
        agent_unlock(a);
        us = clock_mono_us() - start;
        printf("{\"us\": %lld, \"rows\": %zu}\n", (long long)us, done.n_changed);
    }
    home_close(h);
    return 0;
}

/* ---- change ---- */

/* A commit on top of main with one new text at path; nothing refers to it yet. */
static git_oid commit_make(git_repository *r, const char *path, const char *text)
{
    git_tree_update update = { .action = GIT_TREE_UPDATE_UPSERT, .filemode = GIT_FILEMODE_BLOB,
                               .path = path };
    git_reference *main_ref = NULL;
    git_commit *parent = NULL;
    git_tree *tree = NULL, *new_tree = NULL;
    git_signature *who = NULL;
    git_oid tree_id, id;

    if (git_reference_lookup(&main_ref, r, "refs/heads/main") < 0 ||
        git_commit_lookup(&parent, r, git_reference_target(main_ref)) < 0 ||
        git_commit_tree(&tree, parent) < 0 ||
        git_blob_create_from_buffer(&update.id, r, text, strlen(text)) < 0 ||
        git_tree_create_updated(&tree_id, r, tree, 1, &update) < 0 ||
        git_tree_lookup(&new_tree, r, &tree_id) < 0 ||
        git_signature_new(&who, "Bench", "bench@example.org", 1700000000, 0) < 0 ||
        git_commit_create_v(&id, r, NULL, who, who, NULL, "change", new_tree, 1, parent) < 0)
        die_git("commit");
    git_signature_free(who);
    git_tree_free(new_tree);
    git_tree_free(tree);
    git_commit_free(parent);
    git_reference_free(main_ref);
    return id;
}

/* Milliseconds' noise of the disk: one small append and its fsync. */
static int64_t fsync_us(int fd)
{
    static const char page[4096];
    int64_t start = clock_mono_us();

    if (write(fd, page, sizeof(page)) != sizeof(page) || fsync(fd) < 0) {
        perror("bench_rooms: fsync");
        exit(1);
    }
    return clock_mono_us() - start;
}

typedef struct expectation {
    const char *text;
    bool is_met;
} expectation;

static memfs_code look(const block_row *row, void *ctx, memfs_error *err)
{
    expectation *e = ctx;

    (void)err;
    e->is_met = memmem(row->value.ptr, row->value.len, e->text, strlen(e->text)) != NULL;
    return MEMFS_OK;
}

typedef struct changed_agent {
    agent *a;
    const char *id, *path;
    char label[256];
    git_repository *git;
    repo *r;
} changed_agent;

static void changed_agent_open(home *h, char *spec, changed_agent *ret)
{
    memfs_error err = MEMFS_ERROR_INIT;
    char *equals = strchr(spec, '=');
    char *path;

    if (!equals || strlen(equals) > sizeof(ret->label)) {
        fprintf(stderr, "bench_rooms: AGENT=PATH, not %s\n", spec);
        exit(2);
    }
    *equals = '\0';
    *ret = (changed_agent){ .id = spec, .path = equals + 1, .a = agent_of(h, spec) };
    snprintf(ret->label, sizeof(ret->label), "%.*s", (int)strlen(ret->path) - 3, ret->path);
    if (repo_open(home_store(h), agent_repo(ret->a), &ret->r, &err) < 0)
        die(&err, "repository");
    path = store_path(home_store(h), agent_repo(ret->a));
    if (git_repository_open(&ret->git, path) < 0)
        die_git("open");
    free(path);
}

static void change_one(home *h, changed_agent *c, int round, int fd)
{
    static const store_identity who = { "Bench", "bench@example.org", 1700000000 };
    memfs_error err = MEMFS_ERROR_INIT;
    char text[64], file[256];
    memfs_oid from, to;
    materialise_result done;
    cache_tip tip;
    expectation e = { text, false };
    block_query q = { .agent_id = str_of(c->id), .label = str_of(c->label) };
    git_oid id;
    int64_t start, moved, seen;

    snprintf(text, sizeof(text), "round %d of %d", round, (int)getpid());
    snprintf(file, sizeof(file), "---\ndescription: changed\n---\n%s\n", text);
    id = commit_make(c->git, c->path, file);
    memcpy(to.id, id.id, sizeof(to.id));
    if (store_tip(home_store(h), agent_repo(c->a), &from, &err) < 0)
        die(&err, "tip");

    agent_lock(c->a);
    start = clock_mono_us();
    if (repo_ref_move(c->r, &from, &to, &who, "bench", &err) < 0)
        die(&err, "ref move");
    moved = clock_mono_us();
    if (materialise_agent(h, c->a, &done, &err) < 0)
        die(&err, "materialise");
    if (cache_agent_blocks(home_cache(h), &q, &tip, look, &e, &err) < 0)
        die(&err, "blocks");
    seen = clock_mono_us();
    agent_unlock(c->a);
    if (!e.is_met || done.n_changed != 1) {
        fprintf(stderr, "bench_rooms: the block of %s did not change\n", c->label);
        exit(1);
    }
    printf("{\"agent\": \"%s\", \"move_us\": %lld, \"visible_us\": %lld, \"fsync_us\": %lld}\n",
           c->id, (long long)(moved - start), (long long)(seen - moved), (long long)fsync_us(fd));
}

static int change(int argc, char **argv)
{
    changed_agent agents[16];
    int n = argc - 2, rounds, fd;
    char probe[4096];
    home *h;

    if (n < 1 || n > 16)
        return 2;
    h = home_of(argv[0]);
    rounds = (int)strtol(argv[1], NULL, 10);
    for (int i = 0; i < n; i++)
        changed_agent_open(h, argv[2 + i], &agents[i]);
    snprintf(probe, sizeof(probe), "%s.probe", argv[0]);
    fd = open(probe, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) {
        perror(probe);
        return 1;
    }
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < n; i++)
            change_one(h, &agents[i], round, fd);
    for (int i = 0; i < n; i++) {
        git_repository_free(agents[i].git);
        repo_close(agents[i].r);
    }
    close(fd);
    unlink(probe);
    home_close(h);
    return 0;
}

/* ---- register ---- */

static int register_agents(int argc, char **argv)
{
    memfs_error err = MEMFS_ERROR_INIT;
    long n;
    home *h;

    if (argc != 2)
        return 2;
    h = home_of(argv[0]);
    n = strtol(argv[1], NULL, 10);
    for (long i = 0; i < n; i++) {
        uint8_t bytes[16];
        char hex[33], id[64];
        agent *a;
        bool is_known;

        hash_random(bytes, sizeof(bytes));
        hash_hex(bytes, sizeof(bytes), hex);
        snprintf(id, sizeof(id), "agent-%.8s-%.4s-4%.3s-8%.3s-%.12s", hex, hex + 8, hex + 12,
                 hex + 15, hex + 18);
        if (home_agent_for_push(h, str_of(id), &a, &is_known, &err) < 0)
            die(&err, id);
        if (store_create(home_store(h), agent_repo(a), &err) < 0)
            die(&err, id);
        if (state_agent_add(home_state(h), str_of(id), MEMFS_STR(IDS_DEFAULT_ORG),
                            clock_wall_us(), &err) < 0)
            die(&err, id);
    }
    home_close(h);
    printf("{\"registered\": %ld}\n", n);
    return 0;
}

int main(int argc, char **argv)
{
    int status = 2;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 2 && strcmp(argv[1], "rebuild") == 0)
        status = rebuild(argc - 2, argv + 2);
    else if (argc > 2 && strcmp(argv[1], "change") == 0)
        status = change(argc - 2, argv + 2);
    else if (argc > 2 && strcmp(argv[1], "register") == 0)
        status = register_agents(argc - 2, argv + 2);
    if (status == 2)
        fprintf(stderr, "usage: bench_rooms rebuild|change|register HOME ... (see rooms.c)\n");
    return status;
}
