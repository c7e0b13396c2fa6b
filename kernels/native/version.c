/* Raised with every change of a function's arguments: Python refuses a library that was built from other sources. */
#include "native.h"

EXPORT int scalefast_native_version(void) { return 5; }
