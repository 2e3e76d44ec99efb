#include "memory/merge.h"
