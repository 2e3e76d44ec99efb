#include "client/places.h"
