#include "remote/credential.h"
