#include "client/hub.h"
