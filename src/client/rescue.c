#include "client/rescue.h"
