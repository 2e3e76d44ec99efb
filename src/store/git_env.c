#include "store/git_child.h"
