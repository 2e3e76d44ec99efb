#include "cache/find.h"

#include "base/mem.h"

#include <stdlib.h>

/*
 * All terms are looked for in one pass over the words of a text: of each term a set of bits says
 * how many of its first words stand right before here (bit i: i + 1 of them), as in the shift-and
 * algorithm.  Where a match began is known from the starts of the last words.
 */

static bool is_blank(memfs_str s, size_t at, size_t *ret_len)
{
    static const memfs_str wide = { "\xe3\x80\x80", 3 }; /* the blank of Chinese and Japanese */
    unsigned char c = (unsigned char)s.ptr[at];

    *ret_len = c <= ' ' ? 1 : wide.len;
    return c <= ' ' || str_starts_with(str_from(s, at), wide);
}

/* ---- the query ---- */

static memfs_code add_term(find_query *q, size_t *n_bytes, memfs_str text, bool is_prefix,
                           memfs_error *err)
{
    find_term *t = &q->terms[q->n_terms];
    word_reader r;
    word w;

    words_begin(&r, text);
    t->first = q->n_words;
    while (words_next(&r, &w)) {
        if (q->n_words == FIND_MAX_WORDS)
            return memfs_fail(err, MEMFS_EINVALID, "a search has at most %d words: leave some out",
                              FIND_MAX_WORDS);
        memcpy(q->bytes + *n_bytes, w.folded.ptr, w.folded.len);
        q->words[q->n_words++] = str_make(q->bytes + *n_bytes, w.folded.len);
        *n_bytes += w.folded.len;
    }
    t->n = q->n_words - t->first;
    t->is_prefix = is_prefix;
    if (t->n > 0)
        q->n_terms++;
    return MEMFS_OK;
}

/* The end of what begins at `at` and is one term: up to a blank or a quote. */
static size_t end_of_plain(memfs_str text, size_t at)
{
    size_t len;

    while (at < text.len && text.ptr[at] != '"' && !is_blank(text, at, &len))
        at++;
    return at;
}

memfs_code find_parse(memfs_str text, find_query *ret, memfs_error *err)
{
    size_t at = 0, end, len, n_bytes = 0;
    memfs_code rc = MEMFS_OK;

    ret->n_terms = ret->n_words = 0;
    while (rc == MEMFS_OK && at < text.len) {
        if (is_blank(text, at, &len)) {
            at += len;
        } else if (text.ptr[at] == '"') {
            const char *close = memchr(text.ptr + at + 1, '"', text.len - at - 1);

            end = close != NULL ? (size_t)(close - text.ptr) : text.len;
            rc = add_term(ret, &n_bytes, str_make(text.ptr + at + 1, end - at - 1), false, err);
            at = end + 1;
        } else {
            end = end_of_plain(text, at);
            rc = add_term(ret, &n_bytes, str_make(text.ptr + at, end - at),
                          text.ptr[end - 1] == '*', err);
            at = end;
        }
    }
    if (rc == MEMFS_OK && ret->n_terms == 0)
        return memfs_fail(err, MEMFS_EINVALID,
                          "there is no word to search for: give letters or digits");
    return rc;
}

bool find_word_is_prefix(const find_query *q, size_t word)
{
    for (size_t i = 0; i < q->n_terms; i++)
        if (q->terms[i].is_prefix && q->terms[i].first + q->terms[i].n == word + 1)
            return true;
    return false;
}

/* ---- the matches of one text ---- */

struct finder {
    const find_query *q;
    uint32_t before[FIND_MAX_WORDS]; /* of each term */
    size_t starts[FIND_MAX_WORDS];   /* of the last words, by their number */
    size_t n_read;
    size_t counts[FIND_MAX_WORDS]; /* of each term, in this text */
    find_match *matches;           /* of this text */
    size_t n_matches;
    find_match *best; /* of the text that is shown */
    size_t n_best;
};

finder *finder_new(const find_query *q)
{
    finder *f = mem_alloc(sizeof(*f));

    f->q = q;
    f->matches = mem_alloc(FIND_MAX_MATCHES * sizeof(*f->matches));
    f->best = mem_alloc(FIND_MAX_MATCHES * sizeof(*f->best));
    return f;
}

void finder_free(finder *f)
{
    if (f == NULL)
        return;
    free(f->matches);
    free(f->best);
    free(f);
}

void finder_freep(finder **f)
{
    finder_free(*f);
    *f = NULL;
}

static bool word_matches(const find_query *q, size_t at, bool is_prefix, memfs_str word)
{
    return is_prefix ? str_starts_with(word, q->words[at]) : str_equal(word, q->words[at]);
}

/* Which of a term's words this one is. */
static uint32_t places_in(const find_query *q, const find_term *t, memfs_str word)
{
    uint32_t places = 0;

    for (size_t i = 0; i < t->n; i++)
        if (word_matches(q, t->first + i, t->is_prefix && i + 1 == t->n, word))
            places |= UINT32_C(1) << i;
    return places;
}

static void take_word(finder *f, const word *w)
{
    f->starts[f->n_read++ % FIND_MAX_WORDS] = w->start;
    for (size_t i = 0; i < f->q->n_terms; i++) {
        const find_term *t = &f->q->terms[i];

        f->before[i] = ((f->before[i] << 1) | 1) & places_in(f->q, t, w->folded);
        if (!(f->before[i] >> (t->n - 1) & 1))
            continue;
        f->counts[i]++;
        if (f->n_matches < FIND_MAX_MATCHES)
            f->matches[f->n_matches++] =
                (find_match){ f->starts[(f->n_read - t->n) % FIND_MAX_WORDS], w->end, (unsigned)i };
    }
}

static void read_span(finder *f, memfs_str text, size_t start, size_t end)
{
    word_reader r;
    word w;

    memset(f->before, 0, sizeof(f->before));
    words_begin(&r, str_make(text.ptr + start, end - start));
    while (words_next(&r, &w)) {
        w.start += start;
        w.end += start;
        take_word(f, &w);
    }
}

static void read_text(finder *f, const find_text *t)
{
    memset(f->counts, 0, sizeof(f->counts));
    f->n_read = f->n_matches = 0;
    if (t->spans == NULL)
        read_span(f, t->text, 0, t->text.len);
    for (size_t i = 0; t->spans != NULL && i < t->n_spans; i++)
        read_span(f, t->text, t->spans[i].start, t->spans[i].end);
}

/* ---- the snippet ---- */

static find_span span_around(const find_text *t, size_t at)
{
    for (size_t i = 0; t->spans != NULL && i < t->n_spans; i++)
        if (at >= t->spans[i].start && at < t->spans[i].end)
            return t->spans[i];
    return (find_span){ 0, t->text.len };
}

static bool is_inside_character(memfs_str text, size_t at)
{
    return at < text.len && ((unsigned char)text.ptr[at] & 0xc0) == 0x80;
}

/* The match from which on most terms stand close to each other; of equals the first. */
static const find_match *densest(const finder *f)
{
    const find_match *best = f->best;
    int most = 0;

    for (size_t i = 0; i < f->n_best; i++) {
        uint32_t terms = 0;

        for (size_t k = i; k < f->n_best; k++)
            if (f->best[k].end <= f->best[i].start + FIND_SNIPPET_BYTES * 3 / 4)
                terms |= UINT32_C(1) << f->best[k].term;
            else if (f->best[k].start > f->best[i].start + FIND_SNIPPET_BYTES)
                break;
        if (__builtin_popcount(terms) > most) {
            most = __builtin_popcount(terms);
            best = &f->best[i];
        }
    }
    return best;
}

/* A little of what is before it, from the beginning of a word or line on. */
static size_t snippet_start(memfs_str text, find_span within, size_t match)
{
    size_t start = match - within.start > FIND_SNIPPET_BYTES / 5 ? match - FIND_SNIPPET_BYTES / 5
                                                                 : within.start;

    if (start == within.start)
        return start;
    for (size_t i = start; i < match; i++)
        if (text.ptr[i] == ' ' || text.ptr[i] == '\n')
            return i + 1;
    while (is_inside_character(text, start))
        start++;
    return start;
}

static void show(finder *f, const find_text *t, find_hit *ret)
{
    const find_match *first = densest(f);
    find_span within = span_around(t, first->start);
    size_t start = snippet_start(t->text, within, first->start);
    size_t end = start + FIND_SNIPPET_BYTES;

    end = end > within.end ? within.end : end;
    while (end > start && is_inside_character(t->text, end))
        end--;
    end = end < first->end ? first->end : end;
    ret->shown = (find_span){ start, end };
    for (size_t i = 0; i < f->n_best && ret->n_matches < FIND_SHOWN; i++)
        if (f->best[i].start >= start && f->best[i].end <= end)
            ret->matches[ret->n_matches++] = f->best[i];
}

/* ---- a hit ---- */

static double score_of(const finder *f, const find_text *t)
{
    double score = 0, length = 0.5 + (double)f->n_read / 256;

    for (size_t i = 0; i < f->q->n_terms; i++)
        score += t->weight * (double)f->counts[i] / ((double)f->counts[i] + length);
    return score;
}

static void keep_matches(finder *f)
{
    find_match *spare = f->best;

    f->best = f->matches;
    f->n_best = f->n_matches;
    f->matches = spare;
}

bool finder_look(finder *f, const find_text *texts, size_t n, find_hit *ret)
{
    uint64_t found = 0, all = (UINT64_C(1) << f->q->n_terms) - 1;
    double score = 0;

    *ret = (find_hit){ .score = 0 };
    for (size_t i = 0; i < n; i++) {
        read_text(f, &texts[i]);
        for (size_t k = 0; k < f->q->n_terms; k++)
            found |= f->counts[k] > 0 ? UINT64_C(1) << k : 0;
        score += score_of(f, &texts[i]);
        if (f->n_matches > 0) {
            keep_matches(f);
            ret->text = i;
        }
    }
    if (found != all)
        return false;
    ret->score = (int64_t)(score * 1000 + 0.5);
    show(f, &texts[ret->text], ret);
    return true;
}
