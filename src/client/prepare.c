#include "client/prepare.h"
