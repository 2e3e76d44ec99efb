/*
 * eye.h - looks at a Letta server's folder that end in time, also where its volume hangs (L3).
 *
 * A read of a volume that hangs (a hard NFS mount) returns when the volume does; nothing ends it.
 * So requests do not read it: the eye's threads do, and who asks waits EYE_MS at most.  When each
 * of them has been at one look for that long, everybody is told at once that nothing can be seen.
 *
 * Thread: any.
 */
#ifndef MEMFS_LETTA_EYE_H
#define MEMFS_LETTA_EYE_H

#include "letta/folder.h"
#include "memory/ids.h"

#define EYE_MS 2000

typedef struct eye eye;

typedef struct eye_look {
    /* asked: where main is (letta_folder_tip), or with an org: letta_folder_admits */
    char agent_id[IDS_MAX_LEN + 1], org[IDS_MAX_LEN + 1];
    bool is_here;
    /* seen */
    memfs_code code;
    letta_place place;
    memfs_oid tip;
    memfs_error error;
} eye_look;

MEMFS_CHECK memfs_code eye_open(letta_folder *folder, eye **ret, memfs_error *err);
/* False: it was not seen in time. */
bool eye_look_at(eye *e, eye_look *look);
/* False: a look hangs; its thread goes on, with the folder.  NULL is fine. */
bool eye_close(eye *e);

#endif
