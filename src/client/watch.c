#include "client/watch.h"
