#include "cache/words.h"

#include "base/hash.h"
#include "base/mem.h"

#include <stdlib.h>
#include <utf8proc.h>

/*
 * Folding is one code point at a time, so that a word's place in the text is known: its
 * compatibility decomposition, case-folded, without marks (utf8proc).  Hangul syllables stay whole,
 * as their letters would take three times the bytes.
 *
 * The set is seeded, as texts are an agent's own: nobody can make words that all fall on one place.
 */

#define MAX_FOLDED 32 /* code points that one may become; the longest is 18 */

typedef enum kind { BETWEEN, PART, WHOLE, IGNORED } kind;

static bool is_within(uint32_t cp, uint32_t from, uint32_t to)
{
    return cp >= from && cp <= to;
}

static bool is_unspaced(uint32_t cp)
{
    return cp >= 0x0e00 && (is_within(cp, 0x0e00, 0x0eff) || is_within(cp, 0x1000, 0x109f) ||
                            is_within(cp, 0x1780, 0x17ff) || is_within(cp, 0x3040, 0x30ff) ||
                            is_within(cp, 0x31f0, 0x31ff) || is_within(cp, 0x3400, 0x4dbf) ||
                            is_within(cp, 0x4e00, 0x9fff) || is_within(cp, 0xf900, 0xfaff) ||
                            is_within(cp, 0xff66, 0xff9f) || is_within(cp, 0x20000, 0x3ffff));
}

static kind kind_of(uint32_t cp)
{
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return is_unspaced(cp) ? WHOLE : PART;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return PART;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF: return IGNORED;
    default: return BETWEEN;
    }
}

/* Only whole code points, and none after one that had no room. */
static void add_code_point(word_reader *r, uint32_t cp)
{
    char bytes[4];
    size_t len = str_utf8_put(cp, bytes);

    r->is_full = r->is_full || r->n + len > WORD_MAX_BYTES;
    if (r->is_full)
        return;
    memcpy(r->folded + r->n, bytes, len);
    r->n += len;
}

static void add_folded(word_reader *r, uint32_t cp)
{
    utf8proc_int32_t parts[MAX_FOLDED];
    int last_class = UTF8PROC_BOUNDCLASS_START;
    utf8proc_ssize_t n_parts;

    if (is_within(cp, 0xac00, 0xd7a3)) {
        add_code_point(r, cp);
        return;
    }
    n_parts = utf8proc_decompose_char((utf8proc_int32_t)cp, parts, MAX_FOLDED,
                                      UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT |
                                          UTF8PROC_CASEFOLD | UTF8PROC_STRIPMARK | UTF8PROC_IGNORE,
                                      &last_class);
    for (utf8proc_ssize_t i = 0; i < n_parts && i < MAX_FOLDED; i++) {
        kind k = kind_of((uint32_t)parts[i]);

        if (k == PART || k == WHOLE)
            add_code_point(r, (uint32_t)parts[i]);
    }
}

/* A letter or digit of ASCII, folded; 0: it is none. */
static char ascii_folded(char c)
{
    char lower = (char)(c | 0x20);

    if (lower >= 'a' && lower <= 'z')
        return lower;
    return (char)(c >= '0' && c <= '9' ? c : 0);
}

/* The same of what most texts are made of, as many of them as there are in a row. */
static kind take_ascii(word_reader *r)
{
    size_t first = r->pos;
    char c;

    for (; r->pos < r->text.len && (c = ascii_folded(r->text.ptr[r->pos])) != 0; r->pos++) {
        r->is_full = r->is_full || r->n == WORD_MAX_BYTES;
        if (!r->is_full)
            r->folded[r->n++] = c;
    }
    if (r->pos > first)
        return PART;
    r->pos++;
    return BETWEEN;
}

/* The next character, or several: of which kind, and what they have is added to the word. */
static kind take(word_reader *r)
{
    size_t before = r->n;
    uint32_t cp;
    kind k;

    if ((unsigned char)r->text.ptr[r->pos] < 0x80)
        return take_ascii(r);
    if (!str_utf8_next(r->text, &r->pos, &cp))
        return BETWEEN; /* it has moved on */
    k = kind_of(cp);
    if (k != PART && k != WHOLE)
        return k;
    add_folded(r, cp);
    return r->n == before && !r->is_full ? BETWEEN : k; /* nothing is left of some */
}

void words_begin(word_reader *r, memfs_str text)
{
    r->text = text;
    r->pos = 0;
}

bool words_next(word_reader *r, word *ret)
{
    size_t start = 0, end = 0;

    r->n = 0;
    r->is_full = false;
    while (r->pos < r->text.len) {
        size_t at = r->pos, before = r->n;
        kind k = take(r);

        if (k == WHOLE && before > 0) { /* ends the word before it, and is the next one */
            r->pos = at;
            r->n = before;
            break;
        }
        if (k == PART || k == WHOLE) {
            start = before == 0 ? at : start;
            end = r->pos;
        }
        if (k == WHOLE || (k == BETWEEN && before > 0))
            break;
    }
    *ret = (word){ start, end, str_make(r->folded, r->n) };
    return r->n > 0;
}

/* ---- each once ---- */

struct word_place {
    uint64_t hash; /* 0: free */
    uint32_t at, len;
};

void word_set_dispose(word_set *s)
{
    buf_dispose(&s->joined);
    free(s->places);
    s->places = NULL;
    s->n = s->n_places = 0;
}

void word_set_clear(word_set *s)
{
    buf_clear(&s->joined);
    s->n = 0;
    if (s->n_places > 0)
        memset(s->places, 0, s->n_places * sizeof(*s->places));
}

static uint64_t hash_of(const word_set *s, memfs_str word)
{
    uint64_t h = s->seed;

    for (size_t i = 0; i < word.len; i++) {
        h = (h ^ (unsigned char)word.ptr[i]) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 29;
    }
    return h | 1;
}

/* Where a word is, or would be. */
static struct word_place *place_of(const word_set *s, memfs_str word, uint64_t hash)
{
    size_t i = (size_t)(hash >> 20) & (s->n_places - 1);

    for (;; i = (i + 1) & (s->n_places - 1)) {
        struct word_place *p = &s->places[i];

        if (p->hash == 0 || (p->hash == hash && p->len == word.len &&
                             memcmp(s->joined.ptr + p->at, word.ptr, word.len) == 0))
            return p;
    }
}

static void grow(word_set *s)
{
    struct word_place *old = s->places;
    size_t n_old = s->n_places;

    if (s->seed == 0)
        hash_random((uint8_t *)&s->seed, sizeof(s->seed));
    s->n_places = n_old == 0 ? 256 : n_old * 2;
    s->places = mem_alloc(s->n_places * sizeof(*s->places));
    for (size_t i = 0; i < n_old; i++) {
        size_t at = (size_t)(old[i].hash >> 20) & (s->n_places - 1);

        if (old[i].hash == 0)
            continue;
        while (s->places[at].hash != 0)
            at = (at + 1) & (s->n_places - 1);
        s->places[at] = old[i];
    }
    free(old);
}

static void add_word(word_set *s, memfs_str word)
{
    struct word_place *p;
    uint64_t hash;

    if (s->joined.len + 1 + word.len > WORDS_MAX_BYTES)
        return;
    if (2 * (s->n + 1) > s->n_places)
        grow(s);
    hash = hash_of(s, word);
    p = place_of(s, word, hash);
    if (p->hash != 0)
        return;
    if (s->joined.len > 0)
        buf_putc(&s->joined, ' ');
    *p = (struct word_place){ hash, (uint32_t)s->joined.len, (uint32_t)word.len };
    buf_add_str(&s->joined, word);
    s->n++;
}

void word_set_add(word_set *s, memfs_str text)
{
    word_reader r;
    word w;

    words_begin(&r, text);
    while (words_next(&r, &w))
        add_word(s, w.folded);
}
