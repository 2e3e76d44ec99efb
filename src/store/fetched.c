#include "store/fetched.h"
