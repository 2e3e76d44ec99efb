#include "store/transport.h"
