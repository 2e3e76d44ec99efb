/*
 * words.h - text as words: what the search indexes of both databases are made of, and what a search
 * compares (find.h).
 *
 * A word is a run of letters, digits and marks; everything else stands between words.  Words are
 * compared folded: without regard to case, width and accents ("Café", "CAFE" and "cafe" are one
 * word).  Scripts that write no blanks between words (Han, Kana, Thai, Lao, Khmer, Burmese) give
 * one word a character.  Of a word of more than WORD_MAX_BYTES folded bytes the rest is not looked
 * at.
 *
 * Words are made here and not by the databases, whose own rules differ and change with their
 * releases and locales: both must find the same.
 *
 * Pure.  Thread: one at a time a reader or set.
 */
#ifndef MEMFS_CACHE_WORDS_H
#define MEMFS_CACHE_WORDS_H

#include "base/buf.h"

#define WORD_MAX_BYTES 64

/* ---- in their order ---- */

typedef struct word_reader {
    memfs_str text;
    /* its own */
    size_t pos, n;
    bool is_full; /* the word has more than there is room for */
    char folded[WORD_MAX_BYTES];
} word_reader;

typedef struct word {
    size_t start, end; /* bytes of the text */
    memfs_str folded;  /* lives until the next call */
} word;

/* Any bytes; what is not UTF-8 stands between words. */
void words_begin(word_reader *r, memfs_str text);
/* False: there are no more. */
bool words_next(word_reader *r, word *ret);

/* ---- each once ---- */

/*
 * The words of some texts, each once, in the order in which they first came, with a blank between
 * two.  It is bounded, as a tsvector is: what comes after WORDS_MAX_BYTES is left out.
 */
#define WORDS_MAX_BYTES 900000
typedef struct word_set {
    memfs_buf joined; /* for reading */
    /* its own */
    struct word_place *places; /* open addressing */
    size_t n, n_places;
    uint64_t seed;
} word_set;
#define WORD_SET_INIT                                                                              \
    {                                                                                              \
        .joined = MEMFS_BUF_INIT(WORDS_MAX_BYTES)                                                  \
    }
void word_set_dispose(word_set *s);
/* Empties it, and keeps the memory. */
void word_set_clear(word_set *s);
void word_set_add(word_set *s, memfs_str text);

#endif
