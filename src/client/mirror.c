#include "client/mirror.h"
