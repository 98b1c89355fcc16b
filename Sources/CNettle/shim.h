#include <nettle/des.h>
