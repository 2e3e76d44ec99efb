#include "mirror/mirror_int.h"

#include "base/escape.h"

#include <string.h>

static const struct {
    const char *name, *advice;
} NOTES[MIRROR_N_NOTES] = {
    [MIRROR_NOTE_NONE] = { "", "" },
    [MIRROR_NOTE_UNRELATED] = { "unrelated",
        "the remote had a history of its own; both were joined and nothing is lost.  Look at the "
        "files ('memfs restore --server --at COMMIT' brings back those of either side), then 'memfs "
        "mirror resolve --accept'" },
    [MIRROR_NOTE_REWRITTEN] = { "rewritten",
        "somebody rewrote the remote's main; what it had before was joined with it again.  To drop "
        "commits for good use 'memfs purge', else 'memfs mirror resolve --accept'" },
    [MIRROR_NOTE_LOST] = { "lost",
        "the remote had lost commits (a backup put back?); they were pushed again.  'memfs mirror "
        "resolve --accept' ends this note" },
    [MIRROR_NOTE_DELETED] = { "deleted",
        "main was deleted on the remote and pushed again.  To stop mirroring take the remote out "
        "of the configuration ('memfs mirror remove'); 'memfs mirror resolve --accept' ends this "
        "note" },
    [MIRROR_NOTE_BRANCH] = { "branch",
        "the remote's default branch is not main: make main the default branch there, then 'memfs "
        "mirror resolve --accept'" },
    [MIRROR_NOTE_REFUSED] = { "refused",
        "take the offending file out on the remote, or 'memfs mirror resolve --keep-ours', which "
        "joins both histories with our files.  What was purged here goes only with its history: "
        "delete main or the repository there, then 'memfs mirror retry' pushes ours" },
    [MIRROR_NOTE_REJECTED] = { "rejected",
        "let this account push main on the host (protected branch, hook, secret scanning), then "
        "'memfs mirror retry'" },
    [MIRROR_NOTE_BY_RULE] = { "by-rule",
        "both sides changed the same lines and all of them were kept: look at the commit, then "
        "'memfs mirror resolve --accept'" },
    [MIRROR_NOTE_DIVERGED] = { "diverged",
        "this remote is push-only and has commits of others: set 'direction = both' to take them "
        "in, or 'memfs mirror resolve --keep-ours' (or --keep-theirs), which joins both histories" },
    [MIRROR_NOTE_META] = { "meta",
        "memories travel, but name, tags and dates do not: find out who wrote refs/memfs/meta there "
        "and delete it ('git push ADDRESS :refs/memfs/meta'); memfs pushes its own again" },
};

const char *mirror_note_name(mirror_note n)
{
    return n < MIRROR_N_NOTES ? NOTES[n].name : "";
}

const char *mirror_note_advice(mirror_note n)
{
    return n < MIRROR_N_NOTES ? NOTES[n].advice : "";
}

mirror_note mirror_note_parse(memfs_str name)
{
    for (size_t i = 0; i < MIRROR_N_NOTES; i++)
        if (str_equal(str_of(NOTES[i].name), name))
            return (mirror_note)i;
    return MIRROR_NOTE_NONE;
}

remote_answer failure_answer(const char *answer)
{
    for (int a = REMOTE_UNASKED + 1; a < REMOTE_N_ANSWERS; a++)
        if (strcmp(answer, remote_class_of((remote_answer)a)->name) == 0)
            return (remote_answer)a;
    return REMOTE_UNASKED;
}

/* The table's words are a client's; what is local-only there is no news to a server. */
static void without_local_only(memfs_buf *text)
{
    const char *prefix = "local-only: ";

    if (str_starts_with(buf_str(text), str_of(prefix)))
        buf_drop_front(text, strlen(prefix));
}

void failure_words(const char *answer, const char *detail, char *out, size_t size)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
    remote_answer a = failure_answer(answer);

    if (a == REMOTE_UNASKED) {
        escape_text(str_of(detail), out, size);
        return;
    }
    remote_answer_say(&text, a, str_of(detail)); /* escapes */
    without_local_only(&text);
    if (text.len >= size)
        buf_truncate(&text, size - 1);
    memcpy(out, text.ptr, text.len + 1);
}

/* What a server's operator can do; the table's own advice is a client's where it names commands. */
const char *failure_advice(const char *answer)
{
    switch (failure_answer(answer)) {
    case REMOTE_UNAUTHORIZED:
        return "put a good token into the remote's tokenFile (the next poll tries it, 'memfs "
               "mirror retry' at once)";
    case REMOTE_FORBIDDEN:
        return "give the token the right to read and write this repository, then 'memfs mirror "
               "retry'; 'memfs mirror check' says what it may";
    case REMOTE_NOT_FOUND:
        return "create the repository on the host, or let memfs do it (without 'create = false'); "
               "a private one that the token cannot see looks the same";
    case REMOTE_NOT_CREATED:
        return "give the token that right, or create the repository there: it is found by itself; "
               "'memfs mirror check' says what the token may";
    case REMOTE_TLS:
        return "for a private authority set caFile of this remote; verification cannot be switched "
               "off";
    case REMOTE_HOST_KEY:
        return "compare the key with what the host's operator says, then add it to the remote's "
               "sshKnownHosts file";
    case REMOTE_TIMEOUT:
        return "check the network and the host";
    case REMOTE_UNASKED:
        return "";
    default:
        return remote_class_of(failure_answer(answer))->advice;
    }
}
