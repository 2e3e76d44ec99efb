#include "memory/yaml_int.h"

static memfs_code report(const yaml_fault *fault, memfs_error *err)
{
    if (fault->line == 0)
        return memfs_fail(err, fault->code, "%s", fault->what);
    return memfs_fail(err, fault->code, "line %zu: %s", fault->line, fault->what);
}

memfs_code yaml_load(memfs_str text, yaml_doc *doc, yaml_value **ret, bool *ret_aborts,
                     memfs_error *err)
{
    yaml_fault fault = { .code = MEMFS_OK };
    yaml_scanner scanner;
    yaml_node *root = NULL;
    yaml_value *value = NULL;
    bool is_good;

    is_good = yaml_scanner_init(&scanner, text, doc, &fault) && yaml_parse(&scanner, &root);
    if (is_good && root == NULL)
        value = yaml_null(doc);
    else if (is_good)
        is_good = yaml_construct(root, doc, &fault, &value);
    yaml_scanner_dispose(&scanner);
    if (ret_aborts != NULL)
        *ret_aborts = !is_good && fault.aborts;
    if (!is_good)
        return report(&fault, err);
    *ret = value;
    return MEMFS_OK;
}
