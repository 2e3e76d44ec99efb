#include "remote/url.h"
