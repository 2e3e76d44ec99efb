#include "store/sidecar.h"
