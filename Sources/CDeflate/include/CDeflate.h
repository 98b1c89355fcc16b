#ifndef CARREL_DEFLATE_H
#define CARREL_DEFLATE_H

/// The level (0 to 9) of streams that this thread begins from now on with zlib's
/// deflateInit() at Z_DEFAULT_COMPRESSION.
void carrel_set_default_deflate_level(int level);

#endif
