#include "base/oid.h"

bool oid_is_zero(const memfs_oid *oid)
{
    static const memfs_oid zero;

    return oid_equal(oid, &zero);
}

bool oid_equal(const memfs_oid *a, const memfs_oid *b)
{
    return memcmp(a->id, b->id, sizeof(a->id)) == 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

bool oid_parse(memfs_str hex, memfs_oid *ret)
{
    if (hex.len != MEMFS_OID_HEX)
        return false;
    for (size_t i = 0; i < sizeof(ret->id); i++) {
        int high = hex_digit(hex.ptr[2 * i]);
        int low = hex_digit(hex.ptr[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        ret->id[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

void oid_hex(const memfs_oid *oid, char out[MEMFS_OID_HEX + 1])
{
    str_put_hex(oid->id, sizeof(oid->id), out);
}
