#include "memory/layout.h"
