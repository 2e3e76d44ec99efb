/*
 * yaml.h - YAML 1.1 as PyYAML's safe_load and dump have it (block-format 3, 4).
 *
 * A yaml_doc owns its values; they live as long as it does.  Mappings keep their order.
 *
 * Thread: any; a document belongs to one thread at a time.
 */
#ifndef MEMFS_MEMORY_YAML_H
#define MEMFS_MEMORY_YAML_H

#include "base/buf.h"

typedef struct yaml_value yaml_value;
typedef struct yaml_doc yaml_doc;

/* The owner of this room settles the rest of the contract. */

#endif
