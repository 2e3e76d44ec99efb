#include "client/doctor.h"
