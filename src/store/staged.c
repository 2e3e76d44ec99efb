#include "store/staged.h"
