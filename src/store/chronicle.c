#include "store/chronicle.h"
