#include "server/app.h"
