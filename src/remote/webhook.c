#include "remote/webhook.h"
