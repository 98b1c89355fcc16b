#include <rfb/rfb.h>
#include <rfb/rfbregion.h>
