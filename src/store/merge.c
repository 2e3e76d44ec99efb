#include "store/merge.h"
