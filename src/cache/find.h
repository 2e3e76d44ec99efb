/*
 * find.h - what somebody searches for, and where it is in a text.
 *
 * The language has three forms and no errors of syntax: words, each of which must be there;
 * "several words", which must follow each other; and the beginning of a word, with * behind it.
 * What holds no blank but is several words (foo-bar, system/human) is a phrase too.  Anything else
 * is text, and stands between words.
 *
 * The indexes of the databases know which texts have all the words; this decides: whether phrases
 * are there, how good a hit is, and which part of the text shows it.  So what is found, its order
 * and its snippets depend on the text alone, and on no database.
 *
 * A score is the sum, over the texts of a hit and the terms, of
 *     weight * tf / (tf + 0.5 + words of the text / 256)
 * with tf, how often the term is in the text: BM25 without what depends on all other texts, so it
 * stays the same whatever else there is.
 *
 * Pure.  Thread: one at a time a finder; a query may be shared.
 */
#ifndef MEMFS_CACHE_FIND_H
#define MEMFS_CACHE_FIND_H

#include "cache/words.h"

#define FIND_MAX_WORDS 32
#define FIND_MAX_MATCHES 512 /* of a text, that are told apart for its snippet */
#define FIND_SHOWN 16        /* matches of a snippet */
#define FIND_SNIPPET_BYTES 200

typedef struct find_term {
    size_t first, n; /* of words */
    bool is_prefix;  /* its last word */
} find_term;

typedef struct find_query {
    size_t n_terms, n_words;
    find_term terms[FIND_MAX_WORDS];
    memfs_str words[FIND_MAX_WORDS]; /* folded; they point into bytes, so a query does not move */
    char bytes[FIND_MAX_WORDS * WORD_MAX_BYTES];
} find_query;

/* EINVALID: there is no word in it, or there are more than FIND_MAX_WORDS. */
MEMFS_CHECK memfs_code find_parse(memfs_str text, find_query *ret, memfs_error *err);
/* May that word (of q->words) stand for longer ones? */
bool find_word_is_prefix(const find_query *q, size_t word);

/* Bytes of a text; no phrase reaches from one into the next. */
typedef struct find_span {
    size_t start, end;
} find_span;

typedef struct find_text {
    memfs_str text;
    const find_span *spans; /* only these are searched, and shown; NULL: all of it */
    size_t n_spans;
    double weight;
} find_text;

typedef struct find_match {
    size_t start, end; /* bytes of the text */
    unsigned term;
} find_match;

typedef struct find_hit {
    int64_t score;                  /* in thousandths */
    size_t text;                    /* which of them the snippet is of: the last one with a match */
    find_span shown;                /* the snippet, bytes of that text; whole characters */
    find_match matches[FIND_SHOWN]; /* within it, in their order */
    size_t n_matches;
} find_hit;

typedef struct finder finder;
finder *finder_new(const find_query *q);
void finder_free(finder *f); /* NULL is fine */
void finder_freep(finder **f);
/* Does every term of the query stand in one of these texts?  Then *ret says where. */
bool finder_look(finder *f, const find_text *texts, size_t n, find_hit *ret);

#endif
