#include "client/converge.h"
