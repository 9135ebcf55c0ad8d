/* memory_meter.c: a ring in the header bar, and behind it a bar with the parts of the plan. */
#include "app/ui/memory_meter.h"

#include <glib/gi18n.h>
#include <math.h>

#include "app/ui/palette.h"
#include "app/ui/settings.h"
#include "engine/memory_plan.h"

enum { WEIGHTS, KV, SCRATCH, PROGRAM, N_PARTS };

struct _ValiseMemoryMeter {
  AdwBin parent;
  GtkMenuButton *button;
  GtkPopover *popover;
  GtkDrawingArea *ring, *bar;
  GtkLabel *percent_label, *used_label, *context_label;
  GtkGrid *legend;
  GtkLevelBar *context_bar;
  GtkLabel *part_labels[N_PARTS];
  ValiseRunner *runner;
  EngMemoryPlan plan;
  guint64 used_bytes;
  guint tick;
  gboolean narrow;
};

enum { PROP_NARROW = 1, N_PROPS };
static GParamSpec *properties[N_PROPS];

G_DEFINE_TYPE (ValiseMemoryMeter, valise_memory_meter, ADW_TYPE_BIN)

static guint64 part_bytes (const EngMemoryPlan *plan, guint part)
{
  const guint64 bytes[N_PARTS] = { plan->weights_bytes, plan->kv_bytes, plan->scratch_bytes, plan->program_bytes };
  return bytes[part];
}

static double share_used (ValiseMemoryMeter *self)
{
  return self->plan.total_bytes ? (double) self->used_bytes / (double) self->plan.total_bytes : 0;
}

static void draw_ring (GtkDrawingArea *area, cairo_t *cr, int width, int height, gpointer data)
{
  ValiseMemoryMeter *self = data;
  GdkRGBA color;
  double radius = MIN (width, height) / 2.0 - 2, share = MIN (share_used (self), 1);
  gtk_style_context_get_color (gtk_widget_get_style_context (GTK_WIDGET (area)), &color);
  cairo_translate (cr, width / 2.0, height / 2.0);
  cairo_set_line_width (cr, 3.5);
  cairo_set_source_rgba (cr, color.red, color.green, color.blue, 0.18);
  cairo_arc (cr, 0, 0, radius, 0, 2 * G_PI);
  cairo_stroke (cr);
  valise_palette_set (cr, share_used (self) > 1 ? VALISE_COLOR_WARNING : VALISE_COLOR_ACCENT, 1);
  cairo_arc (cr, 0, 0, radius, -G_PI / 2, -G_PI / 2 + 2 * G_PI * share);
  cairo_stroke (cr);
}

static void draw_bar (GtkDrawingArea *area, cairo_t *cr, int width, int height, gpointer data)
{
  ValiseMemoryMeter *self = data;
  guint64 whole = MAX (MAX (self->plan.total_bytes, self->used_bytes), 1);
  double x = 0;
  valise_palette_rounded (cr, 0, 0, width, height, 5);
  cairo_clip (cr);
  valise_palette_set (cr, VALISE_COLOR_SHADE, 1);
  cairo_paint (cr);
  for (guint part = 0; part < N_PARTS; part++) {
    double w = width * (double) part_bytes (&self->plan, part) / (double) whole;
    valise_palette_set (cr, VALISE_COLOR_SERIES + part, 1);
    cairo_rectangle (cr, x, 0, MAX (w - 1, 0), height);
    cairo_fill (cr);
    x += w;
  }
  /* Where the program is now. */
  GdkRGBA color;
  gtk_style_context_get_color (gtk_widget_get_style_context (GTK_WIDGET (area)), &color);
  gdk_cairo_set_source_rgba (cr, &color);
  cairo_rectangle (cr, MIN (width * (double) self->used_bytes / (double) whole, width - 2.0), 0, 2, height);
  cairo_fill (cr);
}

static void draw_swatch (GtkDrawingArea *area, cairo_t *cr, int width, int height, gpointer part)
{
  valise_palette_set (cr, VALISE_COLOR_SERIES + GPOINTER_TO_UINT (part), 1);
  valise_palette_rounded (cr, 0, 0, width, height, 3);
  cairo_fill (cr);
}

static void update (ValiseMemoryMeter *self)
{
  guint used = 0, size = 0;
  gboolean open = self->runner && valise_runner_get_plan (self->runner, &self->plan, &used, &size);
  gtk_widget_set_visible (GTK_WIDGET (self), open);
  if (!open)
    return;
  self->used_bytes = eng_memory_rss ();
  g_autofree char *percent = g_strdup_printf (C_("memory", "%.0f%%"), 100 * share_used (self));
  gtk_label_set_text (self->percent_label, percent);
  gtk_widget_queue_draw (GTK_WIDGET (self->ring));
  if (!gtk_widget_get_visible (GTK_WIDGET (self->popover)))
    return;
  gtk_widget_queue_draw (GTK_WIDGET (self->bar));
  for (guint part = 0; part < N_PARTS; part++) {
    g_autofree char *bytes = valise_size_format (part_bytes (&self->plan, part));
    gtk_label_set_text (self->part_labels[part], bytes);
  }
  g_autofree char *now = valise_size_format (self->used_bytes), *whole = valise_size_format (self->plan.total_bytes);
  g_autofree char *said = g_strdup_printf (C_("memory", "%s used now, of %s planned"), now, whole);
  gtk_label_set_text (self->used_label, said);
  gtk_level_bar_set_value (self->context_bar, size ? (double) used / size : 0);
  g_autofree char *left = g_strdup_printf (C_("memory", "%u of %u tokens used, %u left"), used, size, size - MIN (used, size));
  gtk_label_set_text (self->context_label, left);
}

static gboolean on_tick (gpointer data)
{
  update (data);
  return G_SOURCE_CONTINUE;
}

void valise_memory_meter_set_runner (ValiseMemoryMeter *self, ValiseRunner *runner)
{
  g_set_object (&self->runner, runner);
  g_signal_connect_object (runner, "notify::state", G_CALLBACK (update), self, G_CONNECT_SWAPPED);
  if (!self->tick)
    self->tick = g_timeout_add_seconds (1, on_tick, self);
  update (self);
}

static void add_legend (ValiseMemoryMeter *self)
{
  const char *names[N_PARTS] = { C_("memory", "Weights"), C_("memory", "Conversation (KV cache)"), C_("memory", "Scratch"),
                                 C_("memory", "Program") };
  for (guint part = 0; part < N_PARTS; part++) {
    GtkWidget *swatch = gtk_drawing_area_new (), *name = gtk_label_new (names[part]), *bytes = gtk_label_new (NULL);
    gtk_drawing_area_set_content_width (GTK_DRAWING_AREA (swatch), 12);
    gtk_drawing_area_set_content_height (GTK_DRAWING_AREA (swatch), 12);
    gtk_widget_set_valign (swatch, GTK_ALIGN_CENTER);
    gtk_drawing_area_set_draw_func (GTK_DRAWING_AREA (swatch), draw_swatch, GUINT_TO_POINTER (part), NULL);
    gtk_label_set_xalign (GTK_LABEL (name), 0);
    gtk_widget_set_hexpand (name, TRUE);
    gtk_widget_add_css_class (bytes, "numeric");
    gtk_label_set_xalign (GTK_LABEL (bytes), 1);
    gtk_grid_attach (self->legend, swatch, 0, (int) part, 1, 1);
    gtk_grid_attach (self->legend, name, 1, (int) part, 1, 1);
    gtk_grid_attach (self->legend, bytes, 2, (int) part, 1, 1);
    self->part_labels[part] = GTK_LABEL (bytes);
  }
}

static void get_property (GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  if (id == PROP_NARROW)
    g_value_set_boolean (value, VALISE_MEMORY_METER (object)->narrow);
  else
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
}

static void set_property (GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  ValiseMemoryMeter *self = VALISE_MEMORY_METER (object);
  if (id == PROP_NARROW) {
    self->narrow = g_value_get_boolean (value);
    gtk_widget_set_visible (GTK_WIDGET (self->percent_label), !self->narrow);
  } else {
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
  }
}

static void dispose (GObject *object)
{
  ValiseMemoryMeter *self = VALISE_MEMORY_METER (object);
  g_clear_handle_id (&self->tick, g_source_remove);
  g_clear_object (&self->runner);
  G_OBJECT_CLASS (valise_memory_meter_parent_class)->dispose (object);
}

static void valise_memory_meter_class_init (ValiseMemoryMeterClass *klass)
{
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  G_OBJECT_CLASS (klass)->dispose = dispose;
  G_OBJECT_CLASS (klass)->get_property = get_property;
  G_OBJECT_CLASS (klass)->set_property = set_property;
  properties[PROP_NARROW] = g_param_spec_boolean ("narrow", NULL, NULL, FALSE, G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS);
  g_object_class_install_properties (G_OBJECT_CLASS (klass), N_PROPS, properties);
  gtk_widget_class_set_template_from_resource (widget_class, VALISE_RESOURCES "ui/memory_meter.ui");
  gtk_widget_class_bind_template_child (widget_class, ValiseMemoryMeter, button);
  gtk_widget_class_bind_template_child (widget_class, ValiseMemoryMeter, popover);
  gtk_widget_class_bind_template_child (widget_class, ValiseMemoryMeter, ring);
  gtk_widget_class_bind_template_child (widget_class, ValiseMemoryMeter, bar);
  gtk_widget_class_bind_template_child (widget_class, ValiseMemoryMeter, percent_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseMemoryMeter, used_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseMemoryMeter, context_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseMemoryMeter, legend);
  gtk_widget_class_bind_template_child (widget_class, ValiseMemoryMeter, context_bar);
  gtk_widget_class_bind_template_callback (widget_class, update);
}

static void valise_memory_meter_init (ValiseMemoryMeter *self)
{
  gtk_widget_init_template (GTK_WIDGET (self));
  gtk_drawing_area_set_draw_func (self->ring, draw_ring, self, NULL);
  gtk_drawing_area_set_draw_func (self->bar, draw_bar, self, NULL);
  add_legend (self);
}
