// Drawing with cairo and pango, which are loaded when something is first drawn: they
// bring some thirty libraries along, which cost more to load than all else that a
// process does before its guest runs, and most processes never draw.
#ifndef CCAIRO_H
#define CCAIRO_H

#include <stdint.h>

/// A picture being drawn. Lengths are pixels, colours 0 to 1.
struct ccairo_canvas;

struct ccairo_color {
  double red, green, blue;
};

struct ccairo_text {
  /// UTF-8, ended by a zero byte.
  const char *_Nonnull text;
  double size;
  /// 100 to 1000, as in CSS; 400 is normal.
  int weight;
  /// Room between letters.
  double spacing;
  struct ccairo_color color;
};

/// Begins to draw on `pixels`, rows of 32-bit XRGB without gaps, which must outlive the
/// canvas. NULL when cairo and pango are not installed, or memory is short.
struct ccairo_canvas *_Nullable ccairo_open(uint32_t *_Nonnull pixels, int width, int height);
/// Ends drawing; everything is in `pixels` afterwards.
void ccairo_close(struct ccairo_canvas *_Nonnull canvas);

/// Fills everything, from `top` to `bottom`.
void ccairo_fill(
  struct ccairo_canvas *_Nonnull canvas, struct ccairo_color top, struct ccairo_color bottom);
/// A horizontal line with round ends.
void ccairo_line(
  struct ccairo_canvas *_Nonnull canvas, double x, double y, double length, double thickness,
  struct ccairo_color color);
/// Text centred around (x, y), wrapped at `limit`.
void ccairo_text(
  struct ccairo_canvas *_Nonnull canvas, struct ccairo_text text, double x, double y,
  double limit);

#endif
