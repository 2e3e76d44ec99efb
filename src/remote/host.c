#include "remote/host.h"
