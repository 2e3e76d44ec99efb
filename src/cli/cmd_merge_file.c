/*
 * memfs merge-file - the merge that never asks, by hand and as git's merge driver.
 *
 * As a driver, in the checkouts that memfs prepares:
 *
 *     [merge "memfs"]
 *         driver = '/path/to/memfs' merge-file --driver %O %A %B %P %L
 *     # .git/info/attributes
 *     * merge=memfs
 *
 * git runs it in the top folder of the working tree, for each file that both sides changed (never for
 * modify/delete or file/folder: the rest of the table is `memfs sync`'s).  What follows --driver is taken
 * as it is, whatever it begins with.
 *
 *   text     the result is written over %A, exit 0: git sees no conflict
 *   binary   %A becomes the first side (lower blob id), the second is written beside it in the working tree as
 *            "name.<short id>.ext", untracked, and exit is 0: nothing is asked, nothing is lost, and the
 *            next `git add` takes it along.  Where that cannot be (no working tree, no such folder, another
 *            file of that name) exit is 1: git keeps both sides in its index and reports a conflict
 *   else     exit 129 and more mean to git that the driver failed, and it stops: a file cannot be read
 *
 * %L is the length that conflict markers would have.  git makes it longer than 7 while it merges several
 * merge bases into one; what it makes there is never checked out, so nothing is written beside it.
 * An empty %O is no base: git has no other way to say so, and it comes to the same.
 */
#include "base/fs.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "store/checkout.h"
#include "store/merge.h"

#include <stdio.h>
#include <string.h>

#define MAX_FILE_BYTES (256u << 20)
#define MARKER_LENGTH 7
#define DRIVER_CONFLICT 1
#define DRIVER_FAILED 129

typedef struct three {
    memfs_buf base, a, b, out;
    merge_result notes; /* their paths are not used */
    merge_outcome outcome;
} three;
#define THREE_INIT                                                                                 \
    { MEMFS_BUF_INIT(MAX_FILE_BYTES), MEMFS_BUF_INIT(MAX_FILE_BYTES),                              \
      MEMFS_BUF_INIT(MAX_FILE_BYTES), MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED), MERGE_RESULT_INIT,      \
      MERGE_CLEAN }

static void three_dispose(three *t)
{
    buf_dispose(&t->base);
    buf_dispose(&t->a);
    buf_dispose(&t->b);
    buf_dispose(&t->out);
    merge_result_dispose(&t->notes);
}

static void take_note(merge_rule rule, memfs_str detail, void *ctx)
{
    merge_note_add(ctx, rule, MEMFS_STR(""), detail);
}

static memfs_code merge_files(const char *base, const char *a, const char *b, three *t,
                              memfs_error *err)
{
    memfs_code rc = fs_read(base, &t->base, err);
    memfs_str o;

    if (rc == MEMFS_OK)
        rc = fs_read(a, &t->a, err);
    if (rc == MEMFS_OK)
        rc = fs_read(b, &t->b, err);
    if (rc < 0)
        return rc;
    o = buf_str(&t->base);
    t->outcome = merge_file(o.len > 0 ? &o : NULL, buf_str(&t->a), buf_str(&t->b), &t->out,
                            take_note, &t->notes);
    return MEMFS_OK;
}

/* ---- git's driver ---- */

/* Writes bytes beside `path` below the current folder.  False: it cannot be there. */
static bool put_beside(const char *path, memfs_str bytes, memfs_error *err)
{
    _cleanup_(mem_freep) char *name = NULL;
    _cleanup_(mem_freep) char *folder = NULL;
    _cleanup_(buf_dispose) memfs_buf there = MEMFS_BUF_INIT(MAX_FILE_BYTES);
    const char *slash;
    memfs_oid id;

    hash_git_blob(bytes, &id);
    name = merge_second_name(str_of(path), &id);
    slash = strrchr(name, '/');
    folder = mem_strndup(name, slash != NULL ? (size_t)(slash - name) : 0);
    if (!fs_exists(".git") || (folder[0] != '\0' && !fs_is_dir_beneath(".", folder)))
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no working tree here"), false;
    if (fs_exists(name))
        return fs_read(name, &there, err) == MEMFS_OK && str_equal(buf_str(&there), bytes);
    if (fs_write_atomic(name, bytes, 0644, err) < 0)
        return false;
    cli_talk("'%s' is no text and was changed on both sides; one of them is '%s' now", path, name);
    return true;
}

/* The side with the lower blob id keeps the name, whoever is "ours". */
static int drive_two_files(const char *result, const char *path, bool is_inner, const three *t)
{
    memfs_str a = buf_str(&t->a), b = buf_str(&t->b);
    bool a_first = merge_order(a, b) <= 0;
    memfs_error err = MEMFS_ERROR_INIT;

    if (!is_inner && (path == NULL || !put_beside(path, a_first ? b : a, &err))) {
        cli_talk("'%s' is no text and was changed on both sides; keep one with 'git checkout "
                 "--ours' or '--theirs' and add it",
                 path != NULL ? path : result);
        return DRIVER_CONFLICT;
    }
    if (!a_first && fs_write_atomic(result, b, 0644, &err) < 0)
        return cli_fail(&err, NULL), DRIVER_FAILED;
    return EXIT_GOOD;
}

/* words: %O %A %B, then %P and %L, as git says them */
static int drive(int n, char **words)
{
    _cleanup_(three_dispose) three t = THREE_INIT;
    const char *path = n > 3 ? words[3] : NULL;
    memfs_error err = MEMFS_ERROR_INIT;
    uint64_t marker = MARKER_LENGTH;

    if (n < 3 || n > 5 || (n == 5 && !str_to_u64(str_of(words[4]), 1000000, &marker))) {
        cli_talk("the driver is set as 'memfs merge-file --driver %%O %%A %%B %%P %%L'");
        return DRIVER_FAILED;
    }
    if (merge_files(words[0], words[1], words[2], &t, &err) < 0) {
        cli_fail(&err, NULL);
        return DRIVER_FAILED;
    }
    if (t.outcome == MERGE_TWO_FILES)
        return drive_two_files(words[1], path, marker > MARKER_LENGTH, &t);
    if (fs_write_atomic(words[1], buf_str(&t.out), 0644, &err) < 0) {
        cli_fail(&err, NULL);
        return DRIVER_FAILED;
    }
    return EXIT_GOOD;
}

/* ---- by hand ---- */

static void write_notes(json_writer *w, const merge_result *m, bool with_path)
{
    jw_key(w, "notes");
    jw_array(w);
    for (size_t i = 0; i < m->n_notes; i++) {
        jw_object(w);
        jw_key_text(w, "rule", merge_rule_name(m->notes[i].rule));
        if (with_path)
            jw_key_text(w, "path", m->notes[i].path);
        jw_key_text(w, "detail", m->notes[i].detail);
        jw_object_end(w);
    }
    jw_array_end(w);
}

static void say_notes(const merge_result *m)
{
    for (size_t i = 0; i < m->n_notes; i++)
        cli_talk("by rule: %s %s%s%s", merge_rule_name(m->notes[i].rule), m->notes[i].path,
                 m->notes[i].path[0] != '\0' && m->notes[i].detail[0] != '\0' ? ": " : "",
                 m->notes[i].detail);
}

static cli_exit print_json(memfs_buf *out)
{
    buf_putc(out, '\n');
    fwrite(out->ptr, 1, out->len, stdout);
    return cli_finish(EXIT_GOOD);
}

static const char *outcome_name(merge_outcome outcome)
{
    return outcome == MERGE_CLEAN ? "clean" : outcome == MERGE_BY_RULE ? "by-rule" : "two-files";
}

static cli_exit show_files(const char *const *names, bool as_json)
{
    _cleanup_(buf_dispose) memfs_buf json = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(three_dispose) three t = THREE_INIT;
    json_writer w = JSON_WRITER_INIT(&json);
    memfs_error err = MEMFS_ERROR_INIT;
    cli_exit status = EXIT_GOOD;

    if (merge_files(names[0], names[1], names[2], &t, &err) < 0)
        return cli_fail(&err, NULL);
    if (t.outcome == MERGE_TWO_FILES)
        status = EXIT_CONFLICT_RECORDED;
    if (as_json) {
        jw_object(&w);
        jw_key_text(&w, "outcome", outcome_name(t.outcome));
        if (t.outcome == MERGE_TWO_FILES)
            jw_key_null(&w, "text");
        else
            jw_key_str(&w, "text", buf_str(&t.out));
        write_notes(&w, &t.notes, false);
        jw_object_end(&w);
        return print_json(&json) == EXIT_GOOD ? status : EXIT_FAILED;
    }
    if (status != EXIT_GOOD)
        cli_talk("these cannot be one text; a merge of memories keeps both, one beside the other");
    else
        cli_print_safe(buf_str(&t.out));
    say_notes(&t.notes);
    return cli_finish(status);
}

/* A commit's id, or a branch or ref of the repository. */
static memfs_code find_commit(checkout *c, const char *name, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *branch = mem_printf("refs/heads/%s", name);

    if (oid_parse(str_of(name), ret))
        return MEMFS_OK;
    if (checkout_ref(c, str_starts_with(str_of(name), MEMFS_STR("refs/")) ? name : branch, ret,
                     err) == MEMFS_OK)
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_ENOTFOUND, "there is no commit, branch or ref '%s'", name);
}

static memfs_code merge_named(const char *repo_path, const char *const *names, merge_result *ret,
                              memfs_error *err)
{
    _cleanup_(checkout_closep) checkout *c = NULL;
    memfs_oid a, b;
    memfs_code rc = checkout_library(err);

    if (rc == MEMFS_OK)
        rc = checkout_open(repo_path, &c, err);
    if (rc == MEMFS_OK)
        rc = find_commit(c, names[0], &a, err);
    if (rc == MEMFS_OK)
        rc = find_commit(c, names[1], &b, err);
    return rc == MEMFS_OK ? merge_commits(checkout_repo(c), &a, &b, ret, err) : rc;
}

static cli_exit show_commit(const char *repo_path, const char *const *names, bool as_json)
{
    _cleanup_(merge_result_dispose) merge_result m = MERGE_RESULT_INIT;
    _cleanup_(buf_dispose) memfs_buf json = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    json_writer w = JSON_WRITER_INIT(&json);
    memfs_error err = MEMFS_ERROR_INIT;
    char hex[MEMFS_OID_HEX + 1];

    if (merge_named(repo_path, names, &m, &err) < 0)
        return cli_fail(&err, "name two commits of the repository that --repo names");
    oid_hex(&m.commit, hex);
    if (!as_json) {
        printf("%s\n", hex);
        say_notes(&m);
        return cli_finish(EXIT_GOOD);
    }
    jw_object(&w);
    jw_key_text(&w, "commit", hex);
    jw_key_bool(&w, "is_merge", m.is_merge);
    jw_key_bool(&w, "is_unrelated", m.is_unrelated);
    write_notes(&w, &m, true);
    jw_object_end(&w);
    return print_json(&json);
}

int cmd_merge_file(int argc, char **argv)
{
    const char *repo_path = ".", *rest[3];
    bool as_json = false, of_commits = false, as_driver = false;
    const cli_option options[] = {
        { "commits", CLI_FLAG, &of_commits, NULL, "merge two commits; print the merge commit" },
        { "repo", CLI_TEXT, &repo_path, "DIR", "with --commits: the repository (default: here)" },
        { "driver", CLI_FLAG, &as_driver, NULL, "as git's merge driver: %O %A %B %P %L follow" },
        { "json", CLI_FLAG, &as_json, NULL, "one JSON object with what was decided by rule" },
    };
    const cli_usage usage = {
        "merge-file BASE A B | merge-file --commits A B [--repo DIR]",
        "Merges as memfs sync does, in either order of A and B with the same outcome: lines apart are\n"
        "merged, of lines that met both are kept, front matter is merged key by key.  The text goes to\n"
        "stdout; an empty BASE is none.  Exit 5: they cannot be one text.\n"
        "\n"
        "--commits writes the merge commit into the repository and prints its id; no ref is moved.",
        options, ARRAY_LEN(options),
        "  memfs merge-file /dev/null mine.md yours.md\n"
        "  memfs merge-file --commits --json main refs/remotes/origin/main\n",
        NULL
    };
    size_t n_rest;
    cli_exit status;

    if (argc > 1 && strcmp(argv[1], "--driver") == 0)
        return drive(argc - 2, argv + 2);
    if (!cli_parse(&usage, argc, argv, rest, ARRAY_LEN(rest), &n_rest, &status))
        return status;
    if (as_driver)
        return cli_usage_error(&usage, "--driver comes first");
    if (n_rest != (of_commits ? 2 : 3))
        return cli_usage_error(&usage, of_commits ? "which two commits?"
                                                  : "which three files? (BASE A B)");
    return of_commits ? show_commit(repo_path, rest, as_json) : show_files(rest, as_json);
}
