#include "cli/view.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

void view_time(int64_t time_s, char out[VIEW_TIME_LEN])
{
    time_t t = (time_t)time_s;
    struct tm tm;

    if (localtime_r(&t, &tm) == NULL || strftime(out, VIEW_TIME_LEN, "%Y-%m-%d %H:%M:%S", &tm) == 0)
        memcpy(out, "?", 2);
}

memfs_str view_subject(memfs_str message)
{
    memfs_str line, rest;

    while (message.len > 0 && message.ptr[0] == '\n')
        message = str_from(message, 1);
    return str_split(message, '\n', &line, &rest) ? line : message;
}

static void print_id(const memfs_oid *id, int digits)
{
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(id, hex);
    printf("%.*s", digits, hex);
}

static void print_message(memfs_str message)
{
    memfs_str line;

    while (message.len > 0) {
        if (!str_split(message, '\n', &line, &message)) {
            line = message;
            message = MEMFS_STR("");
        }
        fputs(line.len > 0 ? "    " : "", stdout);
        cli_print_safe(line);
        putchar('\n');
    }
}

static void print_full(const browse_entry *entry)
{
    const commit_info *info = entry->info;
    char when[VIEW_TIME_LEN];

    fputs("commit ", stdout);
    print_id(&entry->id, MEMFS_OID_HEX);
    if (info->n_parents > 1)
        fputs("\nmerge: ", stdout);
    for (size_t i = 0; info->n_parents > 1 && i < info->n_parents; i++) {
        putchar(' ');
        print_id(&info->parents[i], 12);
    }
    fputs("\nauthor: ", stdout);
    cli_print_safe(info->author_name);
    fputs(" <", stdout);
    cli_print_safe(info->author_email);
    view_time(info->author_time_s, when);
    printf(">\ndate:   %s\n\n", when);
    print_message(info->message);
    if (entry->n_paths > 0)
        putchar('\n');
    for (size_t i = 0; i < entry->n_paths; i++) {
        fputs("    ", stdout);
        cli_print_safe(str_of(entry->paths[i]));
        putchar('\n');
    }
    putchar('\n');
}

void view_commit(const browse_entry *entry, view_style style)
{
    char when[VIEW_TIME_LEN];

    if (style == VIEW_FULL) {
        print_full(entry);
        return;
    }
    print_id(&entry->id, 12);
    view_time(entry->info->author_time_s, when);
    printf("  %s  ", when);
    cli_print_safe(view_subject(entry->info->message));
    putchar('\n');
}

static void key_id(const memfs_oid *id, json_writer *w)
{
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(id, hex);
    jw_text(w, hex);
}

void view_commit_json(const browse_entry *entry, bool is_open, json_writer *w)
{
    const commit_info *info = entry->info;
    char when[CLOCK_ISO_LEN];

    clock_iso(info->author_time_s * 1000000, when);
    jw_object(w);
    jw_key(w, "id");
    key_id(&entry->id, w);
    jw_key(w, "parents");
    jw_array(w);
    for (size_t i = 0; i < info->n_parents; i++)
        key_id(&info->parents[i], w);
    jw_array_end(w);
    jw_key_str(w, "author", info->author_name);
    jw_key_str(w, "email", info->author_email);
    jw_key_text(w, "time", when);
    jw_key_str(w, "subject", view_subject(info->message));
    jw_key_str(w, "message", info->message);
    jw_key(w, "paths");
    jw_array(w);
    for (size_t i = 0; i < entry->n_paths; i++)
        jw_text(w, entry->paths[i]);
    jw_array_end(w);
    if (!is_open)
        jw_object_end(w);
}

void view_change(const browse_change *change)
{
    if (change->patch.len > 0) {
        cli_print_safe(change->patch);
        return;
    }
    printf("%c  ", change->status);
    if (change->status == 'R') {
        cli_print_safe(change->old_path);
        fputs(" -> ", stdout);
    }
    cli_print_safe(change->path);
    if (change->is_binary)
        puts("  binary");
    else
        printf("  +%zu -%zu\n", change->n_added, change->n_removed);
}

void view_change_json(const browse_change *change, json_writer *w)
{
    char status[2] = { change->status, '\0' };

    jw_object(w);
    jw_key_text(w, "status", status);
    jw_key_str(w, "path", change->path);
    if (change->status == 'R')
        jw_key_str(w, "old_path", change->old_path);
    else
        jw_key_null(w, "old_path");
    jw_key_int(w, "added", (int64_t)change->n_added);
    jw_key_int(w, "removed", (int64_t)change->n_removed);
    jw_key_bool(w, "binary", change->is_binary);
    if (change->patch.len > 0)
        jw_key_str(w, "patch", change->patch);
    else
        jw_key_null(w, "patch");
    jw_object_end(w);
}

cli_exit view_print(const memfs_buf *json)
{
    puts(json->ptr);
    return cli_finish(EXIT_GOOD);
}
