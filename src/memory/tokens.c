#include "memory/tokens.h"
