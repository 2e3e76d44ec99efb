/*
 * pktline.h - git's packets: four hex digits of length, then that many bytes less four.
 *
 * Lengths 0 to 2 are marks without bytes (flush, delimiter, end of response); 3 means nothing, and
 * a packet has at most 65,520 bytes with its length.  Pure: bytes in, packets out; fuzzed by
 * tests/fuzz/fuzz_pktline.c.
 */
#ifndef MEMFS_SERVER_PKTLINE_H
#define MEMFS_SERVER_PKTLINE_H

#include "base/buf.h"

#define PKT_MAX_BYTES 65520
#define PKT_MAX_PAYLOAD (PKT_MAX_BYTES - 4)

typedef enum pkt_kind {
    PKT_DATA,
    PKT_FLUSH, /* 0000 */
    PKT_DELIM, /* 0001 */
    PKT_END,   /* 0002 */
    PKT_SHORT, /* the bytes end before the packet does: more are needed */
    PKT_BAD,
} pkt_kind;

/* reading */
/* Takes the first packet off *in; *ret is its payload.  PKT_SHORT and PKT_BAD leave *in alone. */
pkt_kind pkt_next(memfs_str *in, memfs_str *ret);
/* Without the newline that many packets end in. */
memfs_str pkt_chomp(memfs_str payload);

/* writing; payloads of pkt_write and pkt_printf are at most PKT_MAX_PAYLOAD (asserted) */
void pkt_write(memfs_buf *out, memfs_str payload);
void pkt_printf(memfs_buf *out, const char *fmt, ...) MEMFS_PRINTF(2, 3);
void pkt_flush(memfs_buf *out);
/* Any number of bytes as packets of one side band (1 data, 2 progress, 3 fatal). */
void pkt_band(memfs_buf *out, int band, memfs_str bytes);

#endif
