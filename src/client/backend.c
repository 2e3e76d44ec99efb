#include "client/backend.h"
