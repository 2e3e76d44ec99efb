#include "mirror/remotes.h"
