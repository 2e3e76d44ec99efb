#include "store/transport_int.h"

#include "base/escape.h"
#include "base/redact.h"

#include <assert.h>
#include <strings.h>

/*
 * git's words under LC_ALL=C, curl's with either of its TLS libraries, ssh's.  The first row that
 * any line matches wins, so the table is ordered from the most particular cause to the most
 * general.  Lines that begin with "remote:" are the other side's prose: they explain, they never
 * decide.
 */

typedef struct cause_row {
    const char *part; /* in any case of letters */
    transport_cause cause;
} cause_row;

static const cause_row CAUSES[] = {
    { "REMOTE HOST IDENTIFICATION HAS CHANGED", TRANSPORT_CAUSE_HOST_KEY },
    { "Host key verification failed", TRANSPORT_CAUSE_HOST_KEY },
    { "host key is known for", TRANSPORT_CAUSE_HOST_KEY },
    { "certificate verification failed", TRANSPORT_CAUSE_TLS },
    { "SSL certificate problem", TRANSPORT_CAUSE_TLS },
    { "certificate subject name", TRANSPORT_CAUSE_TLS },
    { "alternative certificate", TRANSPORT_CAUSE_TLS },
    { "error setting certificate", TRANSPORT_CAUSE_TLS },
    { "gnutls_handshake", TRANSPORT_CAUSE_TLS },
    { "SSL_connect", TRANSPORT_CAUSE_TLS },
    { "SSL routines", TRANSPORT_CAUSE_TLS },
    { "Could not resolve host", TRANSPORT_CAUSE_NO_NAME },
    { "Name or service not known", TRANSPORT_CAUSE_NO_NAME },
    { "Temporary failure in name resolution", TRANSPORT_CAUSE_NO_NAME },
    { "Connection refused", TRANSPORT_CAUSE_REFUSED },
    { "No route to host", TRANSPORT_CAUSE_REFUSED },
    { "Network is unreachable", TRANSPORT_CAUSE_REFUSED },
    { "Couldn't connect to server", TRANSPORT_CAUSE_REFUSED },
    { "timed out", TRANSPORT_CAUSE_TIMEOUT },
    { "Operation too slow", TRANSPORT_CAUSE_TIMEOUT },
    { "requested URL returned error: ", TRANSPORT_CAUSE_HTTP },
    { "RPC failed; HTTP ", TRANSPORT_CAUSE_HTTP },
    { "not valid: is this a git repository", TRANSPORT_CAUSE_NOT_GIT },
    { "unable to update url base from redirection", TRANSPORT_CAUSE_NOT_GIT },
    { "Received HTTP/0.9", TRANSPORT_CAUSE_NOT_GIT },
    { "invalid server response", TRANSPORT_CAUSE_NOT_GIT },
    { "invalid content-type", TRANSPORT_CAUSE_NOT_GIT },
    { "Authentication failed", TRANSPORT_CAUSE_UNAUTHORIZED },
    { "could not read Username", TRANSPORT_CAUSE_UNAUTHORIZED },
    { "could not read Password", TRANSPORT_CAUSE_UNAUTHORIZED },
    { "Permission denied (", TRANSPORT_CAUSE_UNAUTHORIZED },
    { "Too many authentication failures", TRANSPORT_CAUSE_UNAUTHORIZED },
    { "does not appear to be a git repository", TRANSPORT_CAUSE_NOT_FOUND },
    { "repository not found", TRANSPORT_CAUSE_NOT_FOUND },
    { "could not be found", TRANSPORT_CAUSE_NOT_FOUND },
    { "' not found", TRANSPORT_CAUSE_NOT_FOUND },
    { "' does not exist", TRANSPORT_CAUSE_NOT_FOUND },
    { "repository not exported", TRANSPORT_CAUSE_NOT_FOUND },
    { "access denied", TRANSPORT_CAUSE_FORBIDDEN },
    { "error: object ", TRANSPORT_CAUSE_DAMAGED }, /* fsck's: which, and what is wrong with it */
    { "SHA1 mismatch", TRANSPORT_CAUSE_DAMAGED },
    { "inflate: data stream error", TRANSPORT_CAUSE_DAMAGED },
    { "inflate returned", TRANSPORT_CAUSE_DAMAGED },
    { "pack has bad object", TRANSPORT_CAUSE_DAMAGED },
    { "pack signature mismatch", TRANSPORT_CAUSE_DAMAGED },
    { "unresolved deltas", TRANSPORT_CAUSE_DAMAGED },
    { "failed to apply delta", TRANSPORT_CAUSE_DAMAGED },
    { "did not send all necessary objects", TRANSPORT_CAUSE_DAMAGED },
    { "fsck error", TRANSPORT_CAUSE_DAMAGED },
    { "upload-pack: not our ref", TRANSPORT_CAUSE_DAMAGED },
    { "RPC failed", TRANSPORT_CAUSE_CUT },
    { "early EOF", TRANSPORT_CAUSE_CUT },
    { "hung up unexpectedly", TRANSPORT_CAUSE_CUT },
    { "unexpected disconnect", TRANSPORT_CAUSE_CUT },
    { "Connection reset", TRANSPORT_CAUSE_CUT },
    { "Connection closed by", TRANSPORT_CAUSE_CUT },
    { "Broken pipe", TRANSPORT_CAUSE_CUT },
    { "Empty reply from server", TRANSPORT_CAUSE_CUT },
    { "transfer closed", TRANSPORT_CAUSE_CUT },
    { "non-properly terminated", TRANSPORT_CAUSE_CUT },
    { "bad line length", TRANSPORT_CAUSE_CUT },
    { "expected flush after", TRANSPORT_CAUSE_CUT },
    { "unexpected flush packet", TRANSPORT_CAUSE_CUT },
    { "SSL_read", TRANSPORT_CAUSE_CUT },
};

/* Lines that git adds to everything. */
static const char *const EMPTY_WORDS[] = {
    "Please make sure you have the correct access rights", "and the repository exists.",
    "Could not read from remote repository", "failed to push some refs to", "hint: ",
    "the remote end hung up unexpectedly", "index-pack failed", "Warning: Permanently added",
    "unable to read askpass response", "which branches had a forced update", "--show-forced-updates",
    "fetch.showForcedUpdates",
};

static bool contains(memfs_str line, const char *part)
{
    size_t n = strlen(part);

    for (size_t i = 0; i + n <= line.len; i++)
        if (strncasecmp(line.ptr + i, part, n) == 0)
            return true;
    return false;
}

static memfs_str trimmed(memfs_str s)
{
    while (s.len > 0 && (unsigned char)s.ptr[0] <= ' ')
        s = str_from(s, 1);
    while (s.len > 0 && (unsigned char)s.ptr[s.len - 1] <= ' ')
        s.len--;
    return s;
}

static bool next_raw_line(memfs_str *rest, memfs_str *ret)
{
    if (rest->len == 0)
        return false;
    if (!str_split(*rest, '\n', ret, rest)) {
        *ret = *rest;
        rest->len = 0;
    }
    return true;
}

/* Progress ends in CR: a line begins behind it, too. */
static bool next_line(memfs_str *rest, memfs_str *ret)
{
    size_t n = 0;

    if (rest->len == 0)
        return false;
    while (n < rest->len && rest->ptr[n] != '\n' && rest->ptr[n] != '\r')
        n++;
    *ret = trimmed(str_make(rest->ptr, n));
    *rest = str_from(*rest, n + 1);
    return true;
}

static bool is_remotes(memfs_str line)
{
    return str_starts_with(line, MEMFS_STR("remote:"));
}

static bool is_empty_words(memfs_str line)
{
    if (line.len == 0 || line.ptr[0] == '@')
        return true;
    for (size_t i = 0; i < ARRAY_LEN(EMPTY_WORDS); i++)
        if (contains(line, EMPTY_WORDS[i]))
            return true;
    return false;
}

static bool find_cause(memfs_str written, memfs_str *ret_line, const cause_row **ret)
{
    for (size_t i = 0; i < ARRAY_LEN(CAUSES); i++) {
        memfs_str rest = written, line;

        while (next_line(&rest, &line))
            if (!is_remotes(line) && contains(line, CAUSES[i].part)) {
                *ret_line = line;
                *ret = &CAUSES[i];
                return true;
            }
    }
    return false;
}

/* The last line of our side that says something, and the last of the other side. */
static void find_last(memfs_str written, memfs_str *ret_ours, memfs_str *ret_theirs)
{
    memfs_str line;

    *ret_ours = *ret_theirs = MEMFS_STR("");
    while (next_line(&written, &line)) {
        memfs_str said = is_remotes(line) ? trimmed(str_from(line, 7)) : line;

        if (is_remotes(line) && said.len > 0)
            *ret_theirs = said;
        else if (!is_remotes(line) && !is_empty_words(line))
            *ret_ours = line;
    }
}

static int status_in(memfs_str line, const char *part)
{
    size_t n = strlen(part);
    uint64_t status = 0;

    for (size_t i = 0; i + n + 3 <= line.len; i++)
        if (strncasecmp(line.ptr + i, part, n) == 0 &&
            str_to_u64(str_make(line.ptr + i + n, 3), 999, &status))
            return (int)status;
    return 0;
}

static memfs_str without_prefix(memfs_str line)
{
    static const char *const prefixes[] = { "fatal: ", "error: " };

    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++)
        if (str_starts_with(line, str_of(prefixes[i])))
            line = str_from(line, strlen(prefixes[i]));
    return line;
}

static void keep_said(memfs_str ours, memfs_str theirs, const char *const *secrets,
                      size_t n_secrets, transport_report *ret)
{
    _cleanup_(buf_dispose) memfs_buf raw = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf clean = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    buf_add_str(&raw, without_prefix(ours));
    if (theirs.len > 0) {
        buf_puts(&raw, ours.len > 0 ? " (the remote says: " : "the remote says: ");
        buf_add_str(&raw, theirs);
        buf_puts(&raw, ours.len > 0 ? ")" : "");
    }
    redact_add(&clean, buf_str(&raw), secrets, n_secrets);
    escape_text(buf_str(&clean), ret->said, sizeof(ret->said));
}

void transport_said(memfs_str written, const char *const *secrets, size_t n_secrets,
                    transport_report *ret)
{
    memfs_str ours, theirs;
    const cause_row *row = NULL;

    ret->cause = TRANSPORT_CAUSE_OTHER;
    find_last(written, &ours, &theirs);
    if (find_cause(written, &ours, &row)) {
        ret->cause = row->cause;
        if (row->cause == TRANSPORT_CAUSE_HTTP)
            ret->http_status = status_in(ours, row->part);
        if (ret->http_status == 403 && (contains(written, "read-only") ||
                                        contains(written, "archived")))
            ret->cause = TRANSPORT_CAUSE_READ_ONLY;
    }
    keep_said(ours, theirs, secrets, n_secrets, ret);
}

/* ---- git push --porcelain ---- */

/* What a server says when another push was first: git's own words, and those of receive-pack's
 * locks. */
static const char *const MOVED[] = {
    "fetch first", "non-fast-forward", "stale info", "cannot lock ref", "failed to lock",
    "failed to update ref", "incorrect old value", "reference already exists",
};

/*
 * Why it refused, in the order of how much a row says.  Here the remote's prose counts: that it was
 * refused is settled, and what hosts print beside "pre-receive hook declined" is all there is.
 */
static const cause_row REFUSALS[] = {
    { "No space left on device", TRANSPORT_CAUSE_DISK_FULL },
    { "Disk quota exceeded", TRANSPORT_CAUSE_DISK_FULL },
    { "quota exceeded", TRANSPORT_CAUSE_DISK_FULL },
    { "over its size limit", TRANSPORT_CAUSE_DISK_FULL },  /* GitLab, a project's */
    { "over its quota", TRANSPORT_CAUSE_DISK_FULL },
    { "GH009", TRANSPORT_CAUSE_SECRET },
    { "contain secrets", TRANSPORT_CAUSE_SECRET },         /* GH013: "Push cannot contain ..." */
    { "detected secret", TRANSPORT_CAUSE_SECRET },
    { "Secrets detected", TRANSPORT_CAUSE_SECRET },        /* GitLab: "PUSH BLOCKED: ..." */
    { "PUSH PROTECTION", TRANSPORT_CAUSE_SECRET },
    { "GH001", TRANSPORT_CAUSE_TOO_LARGE },                /* "Large files detected" */
    { "exceeds GitHub's file size limit", TRANSPORT_CAUSE_TOO_LARGE },
    { "maximum allowed size", TRANSPORT_CAUSE_TOO_LARGE }, /* receive.maxInputSize */
    { "larger than the allowed size", TRANSPORT_CAUSE_TOO_LARGE },
    { "is larger than the maximum", TRANSPORT_CAUSE_TOO_LARGE },
    { "shallow update not allowed", TRANSPORT_CAUSE_SHALLOW },
    { "GH003", TRANSPORT_CAUSE_TOO_LARGE },
    { "GH006", TRANSPORT_CAUSE_PROTECTED },                /* "Protected branch update failed" */
    { "GH013", TRANSPORT_CAUSE_PROTECTED },                /* "Repository rule violations found" */
    { "rule violations", TRANSPORT_CAUSE_PROTECTED },
    { "protected branch", TRANSPORT_CAUSE_PROTECTED },     /* GitHub, GitLab, Gitea, Forgejo */
    { "branch is protected", TRANSPORT_CAUSE_PROTECTED },
    { "hidden ref", TRANSPORT_CAUSE_PROTECTED },
    { "currently checked out", TRANSPORT_CAUSE_PROTECTED },
    { "read-only", TRANSPORT_CAUSE_READ_ONLY },
    { "read only", TRANSPORT_CAUSE_READ_ONLY },
    { "archived", TRANSPORT_CAUSE_READ_ONLY },
    { "hook declined", TRANSPORT_CAUSE_HOOK },
    { "push declined", TRANSPORT_CAUSE_HOOK },
};

static transport_cause find_refusal(memfs_str summary, memfs_str written)
{
    for (size_t i = 0; i < ARRAY_LEN(REFUSALS); i++)
        if (contains(summary, REFUSALS[i].part) || contains(written, REFUSALS[i].part))
            return REFUSALS[i].cause;
    return TRANSPORT_CAUSE_OTHER;
}

/*
 * The last line of the other side is often a footer ("See https://...", a rule): one that names
 * what decided says more.
 */
static memfs_str telling_remote_line(memfs_str written, transport_cause cause)
{
    memfs_str rest, line;

    for (size_t i = 0; i < ARRAY_LEN(REFUSALS); i++)
        for (rest = written; REFUSALS[i].cause == cause && next_line(&rest, &line);)
            if (is_remotes(line) && contains(line, REFUSALS[i].part))
                return trimmed(str_from(line, 7));
    return MEMFS_STR("");
}

/* "<flag>\t<from>:<to>\t<summary> (<reason>)": the flag and the summary of the ref's line. */
static bool find_ref(const char *ref, memfs_str written, char *ret_flag, memfs_str *ret_summary)
{
    memfs_str line, flag, refs, from, to;

    while (next_raw_line(&written, &line))
        if (str_split(line, '\t', &flag, &line) && flag.len == 1 &&
            str_split(line, '\t', &refs, ret_summary) && str_split(refs, ':', &from, &to) &&
            str_equal(to, str_of(ref))) {
            *ret_flag = flag.ptr[0];
            return true;
        }
    return false;
}

bool transport_read_push(const char *ref, memfs_str report, memfs_str written,
                         const char *const *secrets, size_t n_secrets, transport_report *ret)
{
    memfs_str summary, ours, theirs, telling;
    char flag;

    if (!find_ref(ref, report, &flag, &summary))
        return false;
    ret->is_rejected = flag == '!';
    if (!ret->is_rejected)
        return true;
    for (size_t i = 0; i < ARRAY_LEN(MOVED); i++)
        ret->was_moved = ret->was_moved || contains(summary, MOVED[i]);
    ret->cause = ret->was_moved ? TRANSPORT_CAUSE_NONE : find_refusal(summary, written);
    find_last(written, &ours, &theirs);
    telling = telling_remote_line(written, ret->cause);
    keep_said(trimmed(summary), telling.len > 0 ? telling : theirs, secrets, n_secrets, ret);
    return true;
}

const char *transport_cause_name(transport_cause cause)
{
    static const char *const names[] = {
        [TRANSPORT_CAUSE_NONE] = "none",           [TRANSPORT_CAUSE_OTHER] = "other",
        [TRANSPORT_CAUSE_HTTP] = "http",           [TRANSPORT_CAUSE_NO_NAME] = "no-name",
        [TRANSPORT_CAUSE_REFUSED] = "refused",     [TRANSPORT_CAUSE_TIMEOUT] = "timeout",
        [TRANSPORT_CAUSE_TLS] = "tls",             [TRANSPORT_CAUSE_HOST_KEY] = "host-key",
        [TRANSPORT_CAUSE_UNAUTHORIZED] = "unauthorized",
        [TRANSPORT_CAUSE_FORBIDDEN] = "forbidden", [TRANSPORT_CAUSE_NOT_FOUND] = "not-found",
        [TRANSPORT_CAUSE_NOT_GIT] = "not-git",     [TRANSPORT_CAUSE_CUT] = "cut",
        [TRANSPORT_CAUSE_PROTECTED] = "protected", [TRANSPORT_CAUSE_HOOK] = "hook",
        [TRANSPORT_CAUSE_SECRET] = "secret",       [TRANSPORT_CAUSE_TOO_LARGE] = "too-large",
        [TRANSPORT_CAUSE_DISK_FULL] = "disk-full", [TRANSPORT_CAUSE_READ_ONLY] = "read-only",
        [TRANSPORT_CAUSE_SHALLOW] = "shallow",     [TRANSPORT_CAUSE_DAMAGED] = "damaged",
    };

    static_assert(ARRAY_LEN(names) == TRANSPORT_N_CAUSES, "each cause has a name");
    return names[cause];
}
