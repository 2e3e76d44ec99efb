#include "client/precommit_run.h"
