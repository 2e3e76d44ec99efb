#include "remote/probe.h"
