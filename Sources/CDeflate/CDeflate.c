#include "CDeflate.h"

#include <zlib.h>

static _Thread_local int default_level = Z_DEFAULT_COMPRESSION;

void carrel_set_default_deflate_level(int level) { default_level = level; }

// libvncserver begins ZRLE streams at zlib's default level, whatever the viewer asked for,
// and offers no way to say otherwise. A program's own definition comes before that of the
// shared library (System V ABI, "Dynamic Linking", order of symbol resolution), so its call
// ends up here.
int deflateInit_(z_streamp stream, int level, const char *version, int size) {
  return deflateInit2_(
    stream, level == Z_DEFAULT_COMPRESSION ? default_level : level, Z_DEFLATED, MAX_WBITS, 8,
    Z_DEFAULT_STRATEGY, version, size);
}
