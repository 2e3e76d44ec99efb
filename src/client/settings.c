#include "client/settings.h"
