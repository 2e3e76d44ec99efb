#include "client/worktrees.h"
