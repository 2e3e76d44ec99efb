/* Words, what is searched for, and where it is: words.h, find.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "cache/find.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- words ---- */

static const char *words_of(memfs_str text)
{
    static _Thread_local char out[1024];
    size_t n = 0;
    word_reader r;
    word w;

    out[0] = '\0';
    words_begin(&r, text);
    while (words_next(&r, &w))
        n += (size_t)snprintf(out + n, sizeof(out) - n, "%s%.*s", n > 0 ? " " : "",
                              (int)w.folded.len, w.folded.ptr);
    return out;
}

static void test_words_are_letters_and_digits_folded(void **unused)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        { "", "" },
        { " ,.!? \"'\n\t", "" },
        { "Likes TEA, not coffee.", "likes tea not coffee" },
        { "system/human.md foo_bar-baz", "system human md foo bar baz" },
        { "don't 1.5 3rd", "don t 1 5 3rd" },
        { "Café CAFÉ cafe\xcc\x81", "cafe cafe cafe" },
        { "Straße STRASSE ſ", "strasse strasse s" },
        { "ΣΊΣΥΦΟΣ σίσυφος", "σισυφοσ σισυφοσ" },
        { "İstanbul ISTANBUL", "istanbul istanbul" },
        { "ＦＵＬＬ ﬁne x² ①", "full fine x2 1" },
        { "日本語 text", "日 本 語 text" },
        { "ab日本cd", "ab 日 本 cd" },
        { "かが ｶﾞ カ", "か か カ カ" },
        { "한국어 말", "한국어 말" },
        { "soft\xc2\xadhyphen zero\xe2\x80\x8bwidth", "softhyphen zerowidth" },
        { "🙂 smile ✓", "smile" },
        { "a\xff"
          "b \xc3 c",
          "a b c" },
    };

    (void)unused;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_string_equal(words_of(str_of(cases[i].text)), cases[i].words);
    assert_string_equal(words_of(str_make("a\0b", 3)), "a b");
}

static void test_words_know_their_bytes(void **unused)
{
    memfs_str text = MEMFS_STR("  Größe, naïve");
    word_reader r;
    word w;

    (void)unused;
    words_begin(&r, text);
    assert_true(words_next(&r, &w));
    assert_int_equal(w.start, 2);
    assert_int_equal(w.end, 9);
    assert_true(words_next(&r, &w));
    assert_memory_equal(text.ptr + w.start, "naïve", w.end - w.start);
    assert_int_equal(w.end, text.len);
    assert_false(words_next(&r, &w));
    assert_false(words_next(&r, &w));
}

static void test_a_long_word_is_one_word_of_its_first_64_bytes(void **unused)
{
    char text[300];
    word_reader r;
    word w;

    (void)unused;
    memset(text, 'x', sizeof(text));
    memcpy(text + 62, "\xe2\x84\xb5", 3); /* U+2135, a letter that has no room; alef when folded */
    words_begin(&r, str_make(text, sizeof(text)));
    assert_true(words_next(&r, &w));
    assert_int_equal(w.end, sizeof(text));
    assert_true(w.folded.len <= WORD_MAX_BYTES);
    assert_int_equal(str_utf8_valid_prefix(w.folded), w.folded.len);
    assert_null(memchr(w.folded.ptr, '\0', w.folded.len));
    assert_false(words_next(&r, &w));
}

static void test_a_set_has_each_word_once_in_the_order_in_which_they_came(void **unused)
{
    _cleanup_(word_set_dispose) word_set s = WORD_SET_INIT;
    char word[16];

    (void)unused;
    word_set_add(&s, MEMFS_STR("b a B"));
    word_set_add(&s, MEMFS_STR("c a"));
    assert_string_equal(s.joined.ptr, "b a c");
    word_set_clear(&s);
    word_set_add(&s, MEMFS_STR("a"));
    assert_string_equal(s.joined.ptr, "a");
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 5000; i++) {
            snprintf(word, sizeof(word), "w%d", i);
            word_set_add(&s, str_of(word));
        }
    assert_int_equal(s.n, 5001);
}

static void test_K5_a_set_is_bounded(void **unused)
{
    _cleanup_(word_set_dispose) word_set s = WORD_SET_INIT;
    char word[64];

    (void)unused;
    for (int i = 0; i < 40000; i++) {
        snprintf(word, sizeof(word), "%050d", i);
        word_set_add(&s, str_of(word));
    }
    assert_true(s.joined.len <= WORDS_MAX_BYTES);
    assert_false(s.joined.too_big);
    assert_int_equal(s.joined.len % 51, 50);
}

/* ---- queries ---- */

static void test_T26_no_text_is_an_error_of_syntax(void **unused)
{
    static const struct {
        const char *text, *terms; /* in brackets, with * */
    } cases[] = {
        { "tea", "[tea]" },
        { "  green\ttea ", "[green][tea]" },
        { "\"green tea\"", "[green tea]" },
        { "\"green tea", "[green tea]" },
        { "a\"b c\"d", "[a][b c][d]" },
        { "te*", "[te*]" },
        { "te* \"gre*\"", "[te*][gre]" },
        { "*tea* * **", "[tea*]" },
        { "foo-bar system/hu*", "[foo bar][system hu*]" },
        { "a AND b OR NOT c", "[a][and][b][or][not][c]" },
        { "(tea) NEAR(x, y) col:tea ^tea -tea +tea", "[tea][near x][y][col tea][tea][tea][tea]" },
        { "'; DROP TABLE blocks; --", "[drop][table][blocks]" },
        { "tea' & 'x':* | !y <-> z", "[tea][x*][y][z]" },
        { "日本 語　茶", "[日 本][語][茶]" },
        { "\"\" tea \"...\"", "[tea]" },
    };
    find_query q;
    memfs_error err;
    char out[256];

    (void)unused;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t n = 0;

        assert_int_equal(find_parse(str_of(cases[i].text), &q, &err), MEMFS_OK);
        for (size_t t = 0; t < q.n_terms; t++) {
            n += (size_t)snprintf(out + n, sizeof(out) - n, "[");
            for (size_t k = 0; k < q.terms[t].n; k++) {
                memfs_str w = q.words[q.terms[t].first + k];

                n += (size_t)snprintf(out + n, sizeof(out) - n, "%s%.*s", k > 0 ? " " : "",
                                      (int)w.len, w.ptr);
            }
            n += (size_t)snprintf(out + n, sizeof(out) - n, "%s]", q.terms[t].is_prefix ? "*" : "");
        }
        assert_string_equal(out, cases[i].terms);
    }
}

static void test_a_query_without_words_or_with_too_many_says_so(void **unused)
{
    char many[33 * 2 + 1];
    find_query q;
    memfs_error err;

    (void)unused;
    assert_int_equal(find_parse(MEMFS_STR(""), &q, &err), MEMFS_EINVALID);
    assert_int_equal(find_parse(MEMFS_STR(" \"*\" 🙂 !"), &q, &err), MEMFS_EINVALID);
    for (int i = 0; i < 33; i++)
        memcpy(many + 2 * i, "a ", 3);
    assert_int_equal(find_parse(str_make(many, 64), &q, &err), MEMFS_OK);
    assert_int_equal(find_parse(str_of(many), &q, &err), MEMFS_EINVALID);
}

/* ---- texts ---- */

static bool look(const char *query, const find_text *texts, size_t n, find_hit *ret)
{
    find_query q;
    memfs_error err;
    _cleanup_(finder_freep) finder *f = NULL;

    assert_int_equal(find_parse(str_of(query), &q, &err), MEMFS_OK);
    f = finder_new(&q);
    return finder_look(f, texts, n, ret);
}

static bool is_in(const char *query, const char *text)
{
    find_text one = { .text = str_of(text), .weight = 1 };
    find_hit hit;

    return look(query, &one, 1, &hit);
}

static void test_terms_are_all_there_and_phrases_in_their_order(void **unused)
{
    const char *text = "Ada likes green tea, and black\ncoffee. Green is the tea-pot.";

    (void)unused;
    assert_true(is_in("tea", text));
    assert_true(is_in("coffee ADA", text));
    assert_false(is_in("tea milk", text));
    assert_true(is_in("\"green tea\"", text));
    assert_false(is_in("\"tea green\"", text));
    assert_true(is_in("\"black coffee\"", text)); /* over the end of a line */
    assert_false(is_in("\"green coffee\"", text));
    assert_true(is_in("tea-pot", text));
    assert_false(is_in("pot-tea", text));
    assert_true(is_in("cof*", text));
    assert_false(is_in("cof", text));
    assert_false(is_in("ffee*", text));
    assert_true(is_in("\"a b a c\"", "a b a b a c"));
    assert_true(is_in("x x x", "x"));
    assert_true(is_in("日本", "これは日本語です"));
    assert_false(is_in("本日", "これは日本語です"));
}

static void test_terms_may_stand_in_different_texts_but_not_phrases(void **unused)
{
    find_text two[] = { { .text = MEMFS_STR("green"), .weight = 2 },
                        { .text = MEMFS_STR("tea"), .weight = 1 } };
    find_hit hit;

    (void)unused;
    assert_true(look("green tea", two, 2, &hit));
    assert_int_equal(hit.text, 1);
    assert_false(look("\"green tea\"", two, 2, &hit));
    assert_false(look("green milk", two, 2, &hit));
}

static void test_only_the_spans_of_a_text_count_and_are_shown(void **unused)
{
    const char *text = "one kept\ntwo gone\nthree kept\nfour gone\n";
    find_span spans[] = { { 9, 18 }, { 29, 39 } };
    find_text t = { .text = str_of(text), .spans = spans, .n_spans = 2, .weight = 1 };
    find_hit hit;

    (void)unused;
    assert_false(look("kept", &t, 1, &hit));
    assert_false(look("\"gone four\"", &t, 1, &hit)); /* not from one span into the next */
    assert_true(look("four", &t, 1, &hit));
    assert_int_equal(hit.shown.start, 29);
    assert_int_equal(hit.shown.end, 39);
    assert_int_equal(hit.matches[0].start, 29);
    assert_int_equal(hit.matches[0].end, 33);
}

static int64_t score(const char *query, const char *label, const char *value)
{
    find_text two[] = { { .text = str_of(label), .weight = 3 },
                        { .text = str_of(value), .weight = 1 } };
    find_hit hit;

    assert_true(look(query, two, 2, &hit));
    return hit.score;
}

static void test_more_and_denser_and_in_the_label_is_better(void **unused)
{
    (void)unused;
    assert_true(score("tea", "a", "tea and tea") > score("tea", "a", "tea and milk"));
    assert_true(score("tea", "a", "tea") >
                score("tea", "a", "tea and a lot of words more, so that it is of something else"));
    assert_true(score("tea", "tea", "x") > score("tea", "a", "tea tea tea"));
    assert_int_equal(score("tea", "a", "tea"), 665); /* 1 / (1 + 0.5 + 1/256) */
}

/* The snippet of a text that has the word somewhere in the middle. */
static void test_a_snippet_is_whole_characters_around_the_densest_place(void **unused)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 16);
    find_text t = { .weight = 1 };
    find_hit hit;
    memfs_str shown;

    (void)unused;
    buf_puts(&text, "tea first.");
    for (int i = 0; i < 300; i++)
        buf_puts(&text, "é✓🙂");
    buf_puts(&text, " green tea ");
    for (int i = 0; i < 300; i++)
        buf_puts(&text, "🙂");
    t.text = buf_str(&text);
    assert_true(look("tea green", &t, 1, &hit));
    shown = str_make(text.ptr + hit.shown.start, hit.shown.end - hit.shown.start);
    assert_true(shown.len <= FIND_SNIPPET_BYTES);
    assert_int_equal(str_utf8_valid_prefix(shown), shown.len);
    assert_non_null(memmem(shown.ptr, shown.len, "green tea", 9));
    assert_int_equal(hit.n_matches, 2);
    assert_memory_equal(text.ptr + hit.matches[0].start, "green", 5);
    assert_memory_equal(text.ptr + hit.matches[1].start, "tea", 3);
}

static void test_K5_any_bytes_are_looked_at_without_harm(void **unused)
{
    char *bytes = mem_alloc(1 << 16);
    find_text t = { .text = str_make(bytes, 1 << 16), .weight = 1 };
    uint32_t x = 7;
    find_hit hit;

    (void)unused;
    for (size_t round = 0; round < 20; round++) {
        for (size_t i = 0; i < 1 << 16; i++) {
            x = x * 1664525 + 1013904223;
            bytes[i] = round % 2 == 0 ? (char)(x >> 24) : "ab \xc3\xa9\xff\"c"[x >> 24 & 7];
        }
        memcpy(bytes + (x >> 17), " needle ", 8);
        assert_true(look("needle", &t, 1, &hit));
        assert_true(hit.shown.end <= 1 << 16);
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words_are_letters_and_digits_folded),
        cmocka_unit_test(test_words_know_their_bytes),
        cmocka_unit_test(test_a_long_word_is_one_word_of_its_first_64_bytes),
        cmocka_unit_test(test_a_set_has_each_word_once_in_the_order_in_which_they_came),
        cmocka_unit_test(test_K5_a_set_is_bounded),
        cmocka_unit_test(test_T26_no_text_is_an_error_of_syntax),
        cmocka_unit_test(test_a_query_without_words_or_with_too_many_says_so),
        cmocka_unit_test(test_terms_are_all_there_and_phrases_in_their_order),
        cmocka_unit_test(test_terms_may_stand_in_different_texts_but_not_phrases),
        cmocka_unit_test(test_only_the_spans_of_a_text_count_and_are_shown),
        cmocka_unit_test(test_more_and_denser_and_in_the_label_is_better),
        cmocka_unit_test(test_a_snippet_is_whole_characters_around_the_densest_place),
        cmocka_unit_test(test_K5_any_bytes_are_looked_at_without_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
