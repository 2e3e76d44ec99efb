#include "cli/catalogue.h"

#include "client/places.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

/*
 * Completions for three shells, made from the same rows as the help (catalogue.h), so that they never know an option
 * that is not there.  What a value completes to follows from what the help calls it: ID is an agent of this
 * machine, DIR, FOLDER, FILE and PATH are files, anything else is the user's to write.
 *
 * Agents are listed by `memfs completion agents`, at the time of completing.
 */

#define EACH_COMMAND(i, command) json_array_foreach (all, i, command)

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL ? text : "";
}

static const json_t *options_of(const json_t *command)
{
    return json_object_get(json_object_get(command, "usage"), "options");
}

static const json_t *words_of(const json_t *command)
{
    return json_object_get(json_object_get(command, "usage"), "words");
}

static bool is_flag(const json_t *option)
{
    return strcmp(text_of(option, "kind"), "flag") == 0;
}

static bool is_agent(const json_t *option)
{
    return strcmp(text_of(option, "name"), "agent") == 0;
}

static bool is_file(const json_t *option)
{
    const char *const names[] = { "DIR", "FOLDER", "FILE", "PATH" };

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strstr(text_of(option, "arg"), names[i]) != NULL)
            return true;
    return false;
}

static void print_words(const json_t *words)
{
    const json_t *word;
    size_t i;

    json_array_foreach (words, i, word)
        printf("%s%s", i > 0 ? " " : "", json_string_value(word));
}

/* Inside single quotes; zsh's specs give '[', ']' and ':' a meaning of their own. */
static void print_quoted(const char *text, bool is_spec)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            fputs("'\\''", stdout);
        else if (is_spec && strchr("[]:\\", *text) != NULL)
            printf("\\%c", *text);
        else
            putchar(*text);
    }
}

/* ---- bash ---- */

static void bash_values(const json_t *all)
{
    const json_t *command, *option;
    size_t i, j;

    EACH_COMMAND(i, command)
    {
        json_array_foreach (options_of(command), j, option) {
            if (is_flag(option) || is_agent(option))
                continue;
            printf("    %s:--%s) %sreturn ;;\n", text_of(command, "name"), text_of(option, "name"),
                   is_file(option) ? "COMPREPLY=($(compgen -f -- \"$cur\")); " : "");
        }
    }
}

static void bash_commands(const json_t *all)
{
    const json_t *command, *option;
    size_t i, j;

    EACH_COMMAND(i, command)
    {
        printf("    %s) words='", text_of(command, "name"));
        print_words(words_of(command));
        printf("'; options='--help");
        json_array_foreach (options_of(command), j, option)
            printf(" --%s", text_of(option, "name"));
        puts("' ;;");
    }
}

static void print_bash(const json_t *all)
{
    const json_t *command;
    size_t i;

    puts("# bash completion of memfs:  source <(memfs completion bash)\n"
         "_memfs() {\n"
         "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
         "    local command=${COMP_WORDS[1]} words='' options=''\n"
         "    COMPREPLY=()");
    printf("    if ((COMP_CWORD == 1)); then\n        COMPREPLY=($(compgen -W '");
    EACH_COMMAND(i, command) printf("%s%s", i > 0 ? " " : "", text_of(command, "name"));
    puts("' -- \"$cur\"))\n        return\n    fi\n"
         "    case $command:$prev in\n"
         "    *:--agent) COMPREPLY=($(compgen -W \"$(memfs completion agents 2>/dev/null)\" -- \"$cur\"))"
         "\n        return ;;");
    bash_values(all);
    puts("    esac\n    case $command in");
    bash_commands(all);
    puts("    esac\n"
         "    if [[ $cur == -* ]]; then\n"
         "        COMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n"
         "    elif ((COMP_CWORD == 2)) && [[ $words ]]; then\n"
         "        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
         "    else\n"
         "        COMPREPLY=($(compgen -f -- \"$cur\"))\n"
         "    fi\n"
         "}\n"
         "complete -o filenames -F _memfs memfs");
}

/* ---- zsh ---- */

static void zsh_option(const json_t *option)
{
    printf(" \\\n            '--%s%s[", text_of(option, "name"), is_flag(option) ? "" : "=");
    print_quoted(text_of(option, "help"), true);
    putchar(']');
    if (!is_flag(option)) {
        putchar(':');
        print_quoted(text_of(option, "arg"), true);
        printf(":%s", is_agent(option) ? "_memfs_agents" : is_file(option) ? "_files" : "");
    }
    putchar('\'');
}

static void zsh_command(const json_t *command)
{
    const json_t *option;
    size_t i;

    printf("    %s)\n        _arguments '--help[show help]'", text_of(command, "name"));
    json_array_foreach (options_of(command), i, option)
        zsh_option(option);
    if (json_array_size(words_of(command)) > 0) {
        printf(" \\\n            '1:word:(");
        print_words(words_of(command));
        printf(")'");
    }
    puts(" \\\n            '*:file:_files' ;;");
}

static void print_zsh(const json_t *all)
{
    const json_t *command;
    size_t i;

    puts("#compdef memfs\n"
         "# zsh completion of memfs: put it as _memfs into a folder of $fpath, or\n"
         "#   source <(memfs completion zsh)\n"
         "_memfs_agents() {\n"
         "    local -a ids\n"
         "    ids=(${(f)\"$(memfs completion agents 2>/dev/null)\"})\n"
         "    compadd -a ids\n"
         "}\n"
         "_memfs() {\n"
         "    local -a commands\n"
         "    commands=(");
    EACH_COMMAND(i, command)
    {
        printf("        '%s:", text_of(command, "name"));
        print_quoted(text_of(command, "summary"), false);
        puts("'");
    }
    puts("    )\n"
         "    if ((CURRENT == 2)); then\n"
         "        _describe command commands\n"
         "        return\n"
         "    fi\n"
         "    local command=$words[2]\n"
         "    shift words\n"
         "    ((CURRENT--))\n"
         "    case $command in");
    EACH_COMMAND(i, command) zsh_command(command);
    puts("    esac\n"
         "}\n"
         "if [[ $zsh_eval_context[-1] == loadautofunc ]]; then\n"
         "    _memfs \"$@\"\n"
         "elif (($+functions[compdef])); then\n"
         "    compdef _memfs memfs\n"
         "fi");
}

/* ---- fish ---- */

static void fish_option(const char *command, const json_t *option)
{
    printf("complete -c memfs -n '__fish_seen_subcommand_from %s' -l %s", command,
           text_of(option, "name"));
    if (is_agent(option))
        printf(" -x -a '(memfs completion agents 2>/dev/null)'");
    else if (is_file(option))
        printf(" -r -F");
    else if (!is_flag(option))
        printf(" -x");
    printf(" -d '");
    print_quoted(text_of(option, "help"), false);
    puts("'");
}

static void print_fish(const json_t *all)
{
    const json_t *command, *option;
    size_t i, j;

    puts("# fish completion of memfs:  memfs completion fish | source");
    EACH_COMMAND(i, command)
    {
        const char *name = text_of(command, "name");

        printf("complete -c memfs -f -n __fish_use_subcommand -a %s -d '", name);
        print_quoted(text_of(command, "summary"), false);
        puts("'");
        if (json_array_size(words_of(command)) > 0) {
            printf("complete -c memfs -f -n '__fish_seen_subcommand_from %s' -a '", name);
            print_words(words_of(command));
            puts("'");
        }
        json_array_foreach (options_of(command), j, option)
            fish_option(name, option);
    }
}

/* ---- the command ---- */

static memfs_code print_agent(const place *p, void *ctx, memfs_error *err)
{
    (void)ctx;
    (void)err;
    puts(p->agent_id);
    return MEMFS_OK;
}

static cli_exit print_agents(void)
{
    _cleanup_(settings_freep) settings *s = NULL;
    memfs_error err = MEMFS_ERROR_INIT;

    if (settings_load(NULL, NULL, 0, &s, &err) < 0 || places_each(s, print_agent, NULL, &err) < 0)
        return cli_fail(&err, NULL);
    return cli_finish(EXIT_GOOD);
}

static const struct {
    const char *name;
    void (*print)(const json_t *all);
} SHELLS[] = { { "bash", print_bash }, { "zsh", print_zsh }, { "fish", print_fish } };

static cli_exit print_shell(size_t i)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    json_error_t fault;
    json_t *all;

    catalogue_json(&text);
    all = json_loadb(text.ptr, text.len, 0, &fault);
    if (all == NULL) {
        cli_talk("the options of the commands cannot be read: %s", fault.text);
        return EXIT_FAILED;
    }
    SHELLS[i].print(all);
    json_decref(all);
    return cli_finish(EXIT_GOOD);
}

int cmd_completion(int argc, char **argv)
{
    const cli_usage usage = {
        "completion (bash | zsh | fish | agents)",
        "Prints a script that completes commands, options, agents and files in that shell.  agents\n"
        "prints the ids of the agents on this machine, one a line; the scripts call it.",
        NULL, 0,
        "  source <(memfs completion bash)\n"
        "  memfs completion zsh > ~/.zfunc/_memfs\n"
        "  memfs completion fish > ~/.config/fish/completions/memfs.fish\n",
        "bash zsh fish agents"
    };
    const char *rest[1];
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, rest, 1, &n_rest, &status))
        return status;
    if (n_rest == 1 && strcmp(rest[0], "agents") == 0)
        return print_agents();
    for (size_t i = 0; n_rest == 1 && i < ARRAY_LEN(SHELLS); i++)
        if (strcmp(SHELLS[i].name, rest[0]) == 0)
            return print_shell(i);
    return cli_usage_error(&usage, "which shell? bash, zsh or fish");
}
