#include "store/gitconfig.h"
