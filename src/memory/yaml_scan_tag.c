/*
 * Directives, anchors, aliases and tags: what begins with '%', '&', '*' or '!'.
 */
#include "memory/yaml_int.h"

#include <stdlib.h>

static bool is_word(uint32_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' ||
           c == '_';
}

/* A break, the end or a space: what ends a tag or a directive; a tab does not. */
static bool is_spacez(uint32_t c)
{
    return c == ' ' || yaml_is_breakz(c);
}

static void put_word(yaml_scanner *s)
{
    size_t n = 0;

    while (is_word(yaml_at(s, n)))
        n++;
    yaml_put_next(s, n);
}

static bool put_digits(yaml_scanner *s)
{
    size_t n = 0;

    while (yaml_at(s, n) >= '0' && yaml_at(s, n) <= '9')
        n++;
    if (n == 0)
        return yaml_scan_fail(s, "expected a digit in %YAML");
    yaml_put_next(s, n);
    return true;
}

static bool put_uri_escapes(yaml_scanner *s)
{
    size_t start = s->scratch.len;

    while (yaml_at(s, 0) == '%') {
        char hex[3] = { 0 };

        for (size_t i = 0; i < 2; i++) {
            uint32_t c = yaml_at(s, 1 + i);

            if (!yaml_is_one_of(c, "0123456789ABCDEFabcdef"))
                return yaml_scan_fail(s, "a broken % escape in a tag");
            hex[i] = (char)c;
        }
        buf_putc(&s->scratch, (char)strtoul(hex, NULL, 16));
        yaml_forward(s, 3);
    }
    if (str_utf8_valid_prefix(str_from(buf_str(&s->scratch), start)) != s->scratch.len - start)
        return yaml_scan_fail(s, "% escapes of a tag that are not UTF-8");
    return true;
}

static bool scan_uri(yaml_scanner *s, memfs_str *ret)
{
    bool is_empty = true;

    for (;;) {
        uint32_t c = yaml_at(s, 0);

        if (c == '%') {
            if (!put_uri_escapes(s))
                return false;
        } else if (is_word(c) || yaml_is_one_of(c, ";/?:@&=+$,.!~*'()[]")) {
            yaml_put_next(s, 1);
        } else {
            break;
        }
        is_empty = false;
    }
    if (is_empty)
        return yaml_scan_fail(s, "expected a tag");
    *ret = yaml_take_scratch(s);
    return true;
}

/* "!", "!!" or "!word!" */
static bool scan_handle(yaml_scanner *s, memfs_str *ret)
{
    if (yaml_at(s, 0) != '!')
        return yaml_scan_fail(s, "expected '!'");
    yaml_put_next(s, 1);
    if (yaml_at(s, 0) != ' ') {
        put_word(s);
        if (yaml_at(s, 0) != '!')
            return yaml_scan_fail(s, "expected '!' at the end of a tag handle");
        yaml_put_next(s, 1);
    }
    *ret = yaml_take_scratch(s);
    return true;
}

static bool scan_yaml_directive(yaml_scanner *s, yaml_token *token)
{
    token->type = TOKEN_DIRECTIVE_YAML;
    yaml_skip_spaces(s);
    if (!put_digits(s))
        return false;
    token->text = yaml_take_scratch(s);
    if (yaml_at(s, 0) != '.')
        return yaml_scan_fail(s, "expected '.' in %YAML");
    yaml_forward(s, 1);
    if (!put_digits(s))
        return false;
    buf_clear(&s->scratch);
    return is_spacez(yaml_at(s, 0)) || yaml_scan_fail(s, "expected the end of %YAML");
}

static bool scan_tag_directive(yaml_scanner *s, yaml_token *token)
{
    token->type = TOKEN_DIRECTIVE_TAG;
    yaml_skip_spaces(s);
    if (!scan_handle(s, &token->handle))
        return false;
    if (yaml_at(s, 0) != ' ')
        return yaml_scan_fail(s, "expected a space in %TAG");
    yaml_skip_spaces(s);
    if (!scan_uri(s, &token->text))
        return false;
    return is_spacez(yaml_at(s, 0)) || yaml_scan_fail(s, "expected the end of %TAG");
}

bool yaml_scan_directive(yaml_scanner *s, yaml_token *token)
{
    memfs_str name;
    bool is_good = true;

    yaml_forward(s, 1);
    put_word(s);
    name = yaml_take_scratch(s);
    if (name.len == 0 || !is_spacez(yaml_at(s, 0)))
        return yaml_scan_fail(s, "expected the name of a directive");
    if (str_equal(name, MEMFS_STR("YAML")))
        is_good = scan_yaml_directive(s, token);
    else if (str_equal(name, MEMFS_STR("TAG")))
        is_good = scan_tag_directive(s, token);
    else
        yaml_skip_to_break(s);
    return is_good && yaml_scan_rest_of_line(s, "expected the end of a directive");
}

bool yaml_scan_anchor(yaml_scanner *s, yaml_token *token)
{
    yaml_forward(s, 1);
    put_word(s);
    token->text = yaml_take_scratch(s);
    if (token->text.len == 0)
        return yaml_scan_fail(s, "expected a name after '&' or '*'");
    if (!yaml_is_blankz(yaml_at(s, 0)) && !yaml_is_one_of(yaml_at(s, 0), "?:,]}%@`"))
        return yaml_scan_fail(s, "an anchor or alias with a character that cannot be in its name");
    return true;
}

/* Is there a second '!' before the next space: "!x!y"? */
static bool has_tag_handle(const yaml_scanner *s)
{
    for (size_t i = 1; !is_spacez(yaml_at(s, i)); i++)
        if (yaml_at(s, i) == '!')
            return true;
    return false;
}

static bool scan_verbatim_tag(yaml_scanner *s, yaml_token *token)
{
    yaml_forward(s, 2);
    if (!scan_uri(s, &token->text))
        return false;
    if (yaml_at(s, 0) != '>')
        return yaml_scan_fail(s, "expected '>' at the end of a tag");
    yaml_forward(s, 1);
    return true;
}

static bool scan_short_tag(yaml_scanner *s, yaml_token *token)
{
    token->has_handle = true;
    if (has_tag_handle(s)) {
        if (!scan_handle(s, &token->handle))
            return false;
    } else {
        token->handle = MEMFS_STR("!");
        yaml_forward(s, 1);
    }
    return scan_uri(s, &token->text);
}

bool yaml_scan_tag(yaml_scanner *s, yaml_token *token)
{
    bool is_good = true;

    if (yaml_at(s, 1) == '<') {
        is_good = scan_verbatim_tag(s, token);
    } else if (yaml_is_blankz(yaml_at(s, 1))) {
        token->text = MEMFS_STR("!");
        yaml_forward(s, 1);
    } else {
        is_good = scan_short_tag(s, token);
    }
    return is_good &&
           (is_spacez(yaml_at(s, 0)) || yaml_scan_fail(s, "expected a space after a tag"));
}
