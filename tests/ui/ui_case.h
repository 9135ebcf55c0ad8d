/* ui_case.h: one test of the window: a library of its own in a temporary folder, the real application run to its real end, and hands
 * and eyes for its widgets (found by the ids of the .ui files). A test's body runs inside the application's main loop. */
#ifndef UI_CASE_H
#define UI_CASE_H

#include "app/ui/window.h"

typedef struct {
  ValiseApplication *application;
  ValiseLibrary *library;
  ValiseWindow *window;
  char *home;
} UiCase;

typedef void (*UiBody) (UiCase *c);

/* Call first in main. What the window needs and the tests bring along: a display, the compiled settings schema. */
void ui_init (int *argc, char ***argv);
/* Each test begins with an empty library, or with the one at $VALISE_UI_HOME. Runs the tests and removes what they wrote. */
int ui_run (void);
/* prepare (may be NULL) fills the library before the window opens, in which `window` is NULL; check (may be NULL) reads what is left
 * in it after the program has ended. */
void ui_add (const char *path, UiBody prepare, UiBody body, UiBody check);

/* ---- the clock: only a watchdog of minutes ends a wait ---- */
#define ui_wait(condition)                                                                                                         \
  do {                                                                                                                             \
    gint64 ui_since = g_get_monotonic_time ();                                                                                     \
    while (!(condition))                                                                                                           \
      ui_step (ui_since, #condition, __FILE__, __LINE__);                                                                          \
  } while (0)
void ui_step (gint64 since, const char *condition, const char *file, int line);
void ui_run_for (guint milliseconds);
/* Until what has changed is laid out and drawn. */
void ui_settle (gpointer widget);

/* ---- eyes ---- */
/* The first widget below `root` whose id in its .ui file is `id` (or is of the type); NULL when there is none or it is not shown. */
gpointer ui_find (gpointer root, const char *id);
gpointer ui_find_type (gpointer root, GType type);
/* A shown button or row that carries this label, tooltip or title. */
gpointer ui_find_labelled (gpointer root, const char *label);
/* All shown widgets of the type, in order; borrowed. */
GPtrArray *ui_find_all (gpointer root, GType type);
/* Whether a shown label below holds these words. */
gboolean ui_shows (gpointer root, const char *words);
/* The top window that is not the main one and not a tooltip; NULL when there is none. */
GtkWindow *ui_dialog (UiCase *c);
/* The newest message row, the text of a message row as the person reads it (free with g_free). */
gpointer ui_last_row (UiCase *c);
char *ui_row_text (gpointer row);

/* ---- hands ---- */
void ui_click (gpointer button);
void ui_type (UiCase *c, const char *text);
/* Types and sends, and waits until the answer has ended. */
void ui_ask (UiCase *c, const char *text);
void ui_activate (UiCase *c, const char *action, const char *format, ...);
/* Writes <name>.png into the build's tests/ui folder: the window of this widget as it is drawn. */
void ui_picture (gpointer widget, const char *name);

/* ---- models made by the test ---- */
/* Answers anything with lines of "- Quick jolt", some 250 tokens long, a token in about the milliseconds of `layers`/40. */
#define UI_ANSWER_LINE "- Quick\302\240jolt\n"
char *ui_write_liner (guint layers);
ValiseModel *ui_import (UiCase *c, const char *path, const char *name);

#endif
