#include "client/report.h"
