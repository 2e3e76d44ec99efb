#include "store/checkout.h"
