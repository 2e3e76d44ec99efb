/*
 * git_wire.c - the few sentences of git's protocol that memfs says and hears itself.
 *
 * The advertisements list what we and the children (`git upload-pack`) can do; a client asks for
 * nothing else.  Version 1 is answered with version 0, which every client takes.
 *
 *     v0   "# service=git-upload-pack\n" 0000
 *          "<tip> HEAD\0<capabilities>\n" "<tip> refs/heads/main\n" 0000
 *     v2   "version 2\n" capabilities, one a packet, 0000
 *     push *( "shallow <id>\n" ) 1*( "<old> <new> <ref>[\0<capabilities>]\n" ) 0000 [pack]
 *
 * Reasons in a report are one line of text that may hold what a stranger wrote (a path), so control
 * bytes in it become '?'.
 */
#include "server/git_wire.h"

#define AGENT "agent=memfs"

static const char V0_UPLOAD[] =
    "multi_ack thin-pack side-band side-band-64k ofs-delta shallow deepen-since deepen-not "
    "deepen-relative no-progress include-tag multi_ack_detailed no-done "
    "symref=HEAD:" STORE_MAIN " object-format=sha1 " AGENT;
static const char V0_RECEIVE[] = "report-status report-status-v2 side-band-64k quiet atomic "
                                 "ofs-delta object-format=sha1 " AGENT;

const char *git_service_name(git_service service)
{
    return service == GIT_UPLOAD_PACK ? "git-upload-pack" : "git-receive-pack";
}

bool git_service_parse(memfs_str name, git_service *ret)
{
    if (str_equal(name, MEMFS_STR("git-upload-pack")))
        *ret = GIT_UPLOAD_PACK;
    else if (str_equal(name, MEMFS_STR("git-receive-pack")))
        *ret = GIT_RECEIVE_PACK;
    else
        return false;
    return true;
}

int git_protocol_version(const char *header)
{
    memfs_str rest = str_of(header), entry;
    int version = 0;

    while (rest.len > 0) {
        if (!str_split(rest, ':', &entry, &rest)) {
            entry = rest;
            rest.len = 0;
        }
        if (entry.len == 9 && str_starts_with(entry, MEMFS_STR("version=")) &&
            entry.ptr[8] >= '0' && entry.ptr[8] <= '2' && entry.ptr[8] - '0' > version)
            version = entry.ptr[8] - '0';
    }
    return version;
}

/* ---- advertisements ---- */

void git_advertise_v2(memfs_buf *out)
{
    pkt_write(out, MEMFS_STR("version 2\n"));
    pkt_write(out, MEMFS_STR(AGENT "\n"));
    pkt_write(out, MEMFS_STR("ls-refs=unborn\n"));
    pkt_write(out, MEMFS_STR("fetch=shallow wait-for-done\n"));
    pkt_write(out, MEMFS_STR("object-format=sha1\n"));
    pkt_flush(out);
}

void git_advertise_refs(memfs_buf *out, git_service service, const memfs_oid *tip)
{
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(tip, hex);
    pkt_printf(out, "# service=%s\n", git_service_name(service));
    pkt_flush(out);
    if (service == GIT_UPLOAD_PACK) {
        pkt_printf(out, "%s HEAD%c%s\n", hex, '\0', V0_UPLOAD);
        pkt_printf(out, "%s %s\n", hex, STORE_MAIN);
    } else {
        pkt_printf(out, "%s %s%c%s\n", hex, STORE_MAIN, '\0', V0_RECEIVE);
    }
    pkt_flush(out);
}

/* ---- v2 ---- */

static void take_ls_argument(git_ls_refs *ls, memfs_str line)
{
    static const memfs_str prefix = { "ref-prefix ", 11 };

    if (str_equal(line, MEMFS_STR("peel")))
        ls->peel = true;
    else if (str_equal(line, MEMFS_STR("symrefs")))
        ls->symrefs = true;
    else if (str_equal(line, MEMFS_STR("unborn")))
        ls->unborn = true;
    else if (str_starts_with(line, prefix) && ls->n_prefixes < GIT_WIRE_MAX_PREFIXES)
        ls->prefixes[ls->n_prefixes++] = str_from(line, prefix.len);
    else if (str_starts_with(line, prefix))
        ls->n_prefixes = GIT_WIRE_MAX_PREFIXES + 1; /* too many to keep: all refs, as git does it */
}

static git_v2_command command_of(memfs_str name)
{
    if (str_equal(name, MEMFS_STR("ls-refs")))
        return GIT_V2_LS_REFS;
    if (str_equal(name, MEMFS_STR("fetch")))
        return GIT_V2_FETCH;
    return GIT_V2_OTHER;
}

static memfs_code take_v2_capability(memfs_str line, git_v2_command *ret, memfs_error *err)
{
    static const memfs_str command = { "command=", 8 };

    if (!str_starts_with(line, command))
        return MEMFS_OK;
    if (*ret != GIT_V2_NONE)
        return memfs_fail(err, MEMFS_EINVALID, "the request holds two commands");
    *ret = command_of(str_from(line, command.len));
    return MEMFS_OK;
}

memfs_code git_v2_parse(memfs_str body, git_v2_command *ret, git_ls_refs *ret_ls, memfs_error *err)
{
    bool in_arguments = false;
    memfs_str line;
    memfs_code rc;

    *ret = GIT_V2_NONE;
    *ret_ls = (git_ls_refs){ .n_prefixes = 0 };
    for (;;) {
        switch (pkt_next(&body, &line)) {
        case PKT_DATA:
            line = pkt_chomp(line);
            if (in_arguments) {
                take_ls_argument(ret_ls, line);
                break;
            }
            rc = take_v2_capability(line, ret, err);
            if (rc < 0)
                return rc;
            break;
        case PKT_DELIM: in_arguments = true; break;
        case PKT_FLUSH: return MEMFS_OK;
        default: return memfs_fail(err, MEMFS_EINVALID, "the request is not in git's packets");
        }
    }
}

static bool is_wanted(const git_ls_refs *ls, const char *ref)
{
    if (ls->n_prefixes == 0 || ls->n_prefixes > GIT_WIRE_MAX_PREFIXES)
        return true;
    for (size_t i = 0; i < ls->n_prefixes; i++)
        if (str_starts_with(str_of(ref), ls->prefixes[i]))
            return true;
    return false;
}

void git_ls_refs_answer(memfs_buf *out, const git_ls_refs *ls, const memfs_oid *tip)
{
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(tip, hex);
    if (is_wanted(ls, "HEAD"))
        pkt_printf(out, "%s HEAD%s\n", hex, ls->symrefs ? " symref-target:" STORE_MAIN : "");
    if (is_wanted(ls, STORE_MAIN))
        pkt_printf(out, "%s %s\n", hex, STORE_MAIN);
    pkt_flush(out);
}

/* ---- receive-pack ---- */

static memfs_code take_capability(memfs_str name, git_push_request *rq, memfs_error *err)
{
    const struct {
        memfs_str name;
        bool *flag;
    } flags[] = {
        { MEMFS_STR("report-status"), &rq->report_status },
        { MEMFS_STR("report-status-v2"), &rq->report_status_v2 },
        { MEMFS_STR("side-band-64k"), &rq->side_band_64k },
        { MEMFS_STR("quiet"), &rq->quiet },
        { MEMFS_STR("atomic"), &rq->atomic },
    };

    for (size_t i = 0; i < ARRAY_LEN(flags); i++)
        if (str_equal(name, flags[i].name))
            *flags[i].flag = true;
    if (str_starts_with(name, MEMFS_STR("object-format=")) &&
        !str_equal(name, MEMFS_STR("object-format=sha1")))
        return memfs_fail(err, MEMFS_EINVALID, "only the object format sha1 is kept here");
    if (str_equal(name, MEMFS_STR("push-options")))
        return memfs_fail(err, MEMFS_EINVALID, "push options are not taken here");
    return MEMFS_OK;
}

static memfs_code take_capabilities(memfs_str list, git_push_request *rq, memfs_error *err)
{
    memfs_str name;
    memfs_code rc;

    while (list.len > 0) {
        if (!str_split(list, ' ', &name, &list)) {
            name = list;
            list.len = 0;
        }
        rc = take_capability(name, rq, err);
        if (rc < 0)
            return rc;
    }
    return MEMFS_OK;
}

/* "<old> <new> <ref>", ids in lower-case hex, one blank between. */
static bool parse_command(memfs_str line, push_command *ret)
{
    const size_t hex = MEMFS_OID_HEX;

    if (line.len <= 2 * hex + 2 || line.ptr[hex] != ' ' || line.ptr[2 * hex + 1] != ' ')
        return false;
    if (!oid_parse(str_make(line.ptr, hex), &ret->old_id) ||
        !oid_parse(str_make(line.ptr + hex + 1, hex), &ret->new_id))
        return false;
    ret->ref = str_from(line, 2 * hex + 2);
    return memchr(ret->ref.ptr, '\0', ret->ref.len) == NULL;
}

static memfs_code take_command(memfs_str line, git_push_request *rq, memfs_error *err)
{
    memfs_str command = line, capabilities;
    memfs_code rc;

    if (rq->n_commands == GIT_WIRE_MAX_COMMANDS)
        return memfs_fail(err, MEMFS_ELIMIT, "a push may name at most %d refs",
                          GIT_WIRE_MAX_COMMANDS);
    if (rq->n_commands == 0 && str_split(line, '\0', &command, &capabilities)) {
        rc = take_capabilities(capabilities, rq, err);
        if (rc < 0)
            return rc;
    }
    if (!parse_command(command, &rq->commands[rq->n_commands]))
        return memfs_fail(err, MEMFS_EINVALID, "a push command is malformed");
    rq->n_commands++;
    return MEMFS_OK;
}

static memfs_code take_push_line(memfs_str line, git_push_request *rq, memfs_error *err)
{
    if (str_starts_with(line, MEMFS_STR("push-cert")))
        return memfs_fail(err, MEMFS_EINVALID, "signed pushes are not taken here");
    /* What a shallow clone lacks is missed when the pack is checked; the line itself says nothing.
     */
    if (str_starts_with(line, MEMFS_STR("shallow ")) && rq->n_commands == 0)
        return MEMFS_OK;
    return take_command(line, rq, err);
}

memfs_code git_push_parse(memfs_str bytes, git_push_request *ret, size_t *ret_used,
                          memfs_error *err)
{
    memfs_str rest = bytes, line;
    memfs_code rc;

    *ret = (git_push_request){ .n_commands = 0 };
    *ret_used = 0;
    for (;;) {
        switch (pkt_next(&rest, &line)) {
        case PKT_DATA:
            rc = take_push_line(pkt_chomp(line), ret, err);
            if (rc < 0)
                return rc;
            break;
        case PKT_FLUSH: *ret_used = bytes.len - rest.len; return MEMFS_OK;
        case PKT_SHORT: return MEMFS_OK;
        default: return memfs_fail(err, MEMFS_EINVALID, "the request is not in git's packets");
        }
    }
}

/* One line of a report; what does not fit a line does not get into it. */
static void add_report_line(memfs_buf *out, const char *word, memfs_str ref, const char *reason)
{
    memfs_buf line = MEMFS_BUF_INIT(4096);

    buf_puts(&line, word);
    if (ref.len > 0)
        buf_putc(&line, ' ');
    buf_add(&line, ref.ptr, ref.len < 2048 ? ref.len : 2048);
    if (reason != NULL)
        buf_printf(&line, " %.1024s", reason);
    for (size_t i = 0; i < line.len; i++)
        if ((unsigned char)line.ptr[i] < 0x20 || line.ptr[i] == 0x7F)
            line.ptr[i] = '?';
    buf_putc(&line, '\n');
    pkt_write(out, buf_str(&line));
    buf_dispose(&line);
}

void git_push_report(memfs_buf *out, const git_push_request *rq, const char *unpack_error,
                     const char *const *refusals)
{
    bool unpacked = unpack_error[0] == '\0';

    if (!rq->report_status && !rq->report_status_v2)
        return;
    add_report_line(out, "unpack", str_make("", 0), unpacked ? "ok" : unpack_error);
    for (size_t i = 0; i < rq->n_commands; i++)
        add_report_line(out, refusals[i] == NULL ? "ok" : "ng", rq->commands[i].ref, refusals[i]);
    pkt_flush(out);
}
