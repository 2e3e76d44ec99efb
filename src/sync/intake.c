#include "sync/intake.h"
