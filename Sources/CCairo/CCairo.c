#include "CCairo.h"

#include <cairo.h>
#include <dlfcn.h>
#include <pango/pangocairo.h>
#include <pthread.h>
#include <stdlib.h>

#define FUNCTIONS(X) \
  X(cairo_create) \
  X(cairo_destroy) \
  X(cairo_image_surface_create_for_data) \
  X(cairo_line_to) \
  X(cairo_move_to) \
  X(cairo_paint) \
  X(cairo_pattern_add_color_stop_rgb) \
  X(cairo_pattern_create_linear) \
  X(cairo_pattern_destroy) \
  X(cairo_set_line_cap) \
  X(cairo_set_line_width) \
  X(cairo_set_source) \
  X(cairo_set_source_rgb) \
  X(cairo_stroke) \
  X(cairo_surface_destroy) \
  X(cairo_surface_flush) \
  X(g_object_unref) \
  X(pango_attr_letter_spacing_new) \
  X(pango_attr_list_insert) \
  X(pango_attr_list_new) \
  X(pango_attr_list_unref) \
  X(pango_cairo_create_layout) \
  X(pango_cairo_show_layout) \
  X(pango_font_description_free) \
  X(pango_font_description_from_string) \
  X(pango_font_description_set_absolute_size) \
  X(pango_font_description_set_weight) \
  X(pango_layout_get_pixel_size) \
  X(pango_layout_set_alignment) \
  X(pango_layout_set_attributes) \
  X(pango_layout_set_font_description) \
  X(pango_layout_set_text) \
  X(pango_layout_set_width)

static struct {
#define X(name) __typeof__(name) *name;
  FUNCTIONS(X)
#undef X
} lib;

static int is_loaded;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void) {
  void *library = dlopen("libpangocairo-1.0.so.0", RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) return;
#define X(name) \
  if ((lib.name = (__typeof__(name) *)dlsym(library, #name)) == NULL) return;
  FUNCTIONS(X)
#undef X
  is_loaded = 1;
}

struct ccairo_canvas {
  cairo_surface_t *surface;
  cairo_t *context;
  int height;
};

struct ccairo_canvas *ccairo_open(uint32_t *pixels, int width, int height) {
  pthread_once(&once, load);
  if (!is_loaded) return NULL;
  struct ccairo_canvas *canvas = malloc(sizeof *canvas);
  if (canvas == NULL) return NULL;
  // Both answer shortage with an object that draws nothing, never with NULL.
  canvas->surface = lib.cairo_image_surface_create_for_data(
    (unsigned char *)pixels, CAIRO_FORMAT_RGB24, width, height, width * 4);
  canvas->context = lib.cairo_create(canvas->surface);
  canvas->height = height;
  return canvas;
}

void ccairo_close(struct ccairo_canvas *canvas) {
  lib.cairo_surface_flush(canvas->surface);
  lib.cairo_destroy(canvas->context);
  lib.cairo_surface_destroy(canvas->surface);
  free(canvas);
}

void ccairo_fill(struct ccairo_canvas *canvas, struct ccairo_color top, struct ccairo_color bottom) {
  cairo_pattern_t *gradient = lib.cairo_pattern_create_linear(0, 0, 0, canvas->height);
  lib.cairo_pattern_add_color_stop_rgb(gradient, 0, top.red, top.green, top.blue);
  lib.cairo_pattern_add_color_stop_rgb(gradient, 1, bottom.red, bottom.green, bottom.blue);
  lib.cairo_set_source(canvas->context, gradient);
  lib.cairo_paint(canvas->context);
  lib.cairo_pattern_destroy(gradient);
}

static void use(cairo_t *context, struct ccairo_color color) {
  lib.cairo_set_source_rgb(context, color.red, color.green, color.blue);
}

void ccairo_line(
  struct ccairo_canvas *canvas, double x, double y, double length, double thickness,
  struct ccairo_color color) {
  cairo_t *context = canvas->context;
  lib.cairo_set_line_cap(context, CAIRO_LINE_CAP_ROUND);
  lib.cairo_set_line_width(context, thickness);
  use(context, color);
  lib.cairo_move_to(context, x, y);
  lib.cairo_line_to(context, x + length, y);
  lib.cairo_stroke(context);
}

void ccairo_text(
  struct ccairo_canvas *canvas, struct ccairo_text text, double x, double y, double limit) {
  PangoLayout *layout = lib.pango_cairo_create_layout(canvas->context);
  PangoFontDescription *font = lib.pango_font_description_from_string("Sans");
  lib.pango_font_description_set_absolute_size(font, text.size * PANGO_SCALE);
  lib.pango_font_description_set_weight(font, (PangoWeight)text.weight);
  lib.pango_layout_set_font_description(layout, font);
  lib.pango_font_description_free(font);
  lib.pango_layout_set_width(layout, (int)(limit * PANGO_SCALE));
  lib.pango_layout_set_alignment(layout, PANGO_ALIGN_CENTER);
  PangoAttrList *attributes = lib.pango_attr_list_new();
  lib.pango_attr_list_insert(
    attributes, lib.pango_attr_letter_spacing_new((int)(text.spacing * PANGO_SCALE)));
  lib.pango_layout_set_attributes(layout, attributes);
  lib.pango_attr_list_unref(attributes);
  lib.pango_layout_set_text(layout, text.text, -1);
  int width = 0, height = 0;
  lib.pango_layout_get_pixel_size(layout, &width, &height);
  use(canvas->context, text.color);
  lib.cairo_move_to(canvas->context, x - limit / 2, y - (double)height / 2);
  lib.pango_cairo_show_layout(canvas->context, layout);
  lib.g_object_unref(layout);
}
