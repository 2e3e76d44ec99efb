#include "memory/diff3.h"
