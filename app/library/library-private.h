/* library-private.h: what the files of app/library share and nobody else may touch. */
#ifndef VALISE_LIBRARY_PRIVATE_H
#define VALISE_LIBRARY_PRIVATE_H

#include "app/library/files.h"
#include "app/library/library.h"
#include "app/library/store.h"
#include "engine/error.h"

struct _ValiseLibrary {
  GObject parent;
  char *home;
  ValiseStore *store;
  guint signal_sources[2]; /* pending emissions, by ValiseLibrarySignal; under the store's lock */
};

typedef enum { VALISE_SIGNAL_MODELS, VALISE_SIGNAL_CHATS, VALISE_N_SIGNALS } ValiseLibrarySignal;
/* Emits on the default main context, soon; several calls before that are one emission. */
void valise_library_emit (ValiseLibrary *library, ValiseLibrarySignal signal);

/* FALSE with "<doing> <path>: <reason>: what to do", the no-space kind for ENOSPC, EDQUOT and EFBIG. */
gboolean valise_fail_errno (GError **error, int code, const char *doing, const char *path);
/* FALSE with ENG_ERROR_CANCELLED. */
gboolean valise_check_cancelled (GCancellable *cancellable, GError **error);

/* ---- models ---- */
typedef struct {
  gint64 id, parent;
  char *name, *architecture, *license, *source, *path, *sha256;
  ValiseModelKind kind;
  guint64 parameters, bytes;
  double bpw, kl;
  guint context;
} ValiseModelRow;
void valise_model_row_clear (ValiseModelRow *row);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (ValiseModelRow, valise_model_row_clear)
/* Takes the row's strings. */
ValiseModel *valise_model_new (ValiseModelRow *row);
/* Checks that the file is a model this program can use and fills kind, architecture, parameters, bytes, bpw, license, kl, context
 * and path; the other fields are left alone. */
gboolean valise_model_row_read (ValiseModelRow *row, const char *path, GError **error);
/* "name", or "name-2", "name-3", ... : free in the library. Call inside a transaction. */
char *valise_library_free_name (ValiseLibrary *library, const char *name, GError **error);
gboolean valise_name_check (const char *name, GError **error);

/* Moves a whole file or folder of shards (inside a ValiseTemp) to its content address and adds the row, as one step as seen from
 * outside. The row's sha256, name (may be taken: made free when make_free, else an error), kind ... are given. What the library holds
 * already, under that name (or any when make_free), is returned as it is, its file renewed. */
ValiseModel *valise_library_add_object (ValiseLibrary *library, const char *temp_path, const char *entry, ValiseModelRow *row,
                                        gboolean make_free, GError **error);
/* The same for files that stay where they are: `path` is what opens them. */
ValiseModel *valise_library_add_reference (ValiseLibrary *library, const char *path, ValiseModelRow *row, gboolean make_free, GError **error);
/* What a path of another program's cache stands for (an Ollama manifest, a hub cache folder), and how that program calls it; else a copy of the path
 * and NULL. NULL with an error where it stands for nothing. Free both with g_free. */
char *valise_resolve_cache (const char *path, char **name, GError **error);
/* A key that stands for the model's contents: its sha256, or for a file outside the library a hash of its place and state. */
char *valise_model_content_key (ValiseModel *model, GError **error);
/* Files made from a model, whose names begin with its key: analyses, packed forms. Moves one that is complete to its place. */
gboolean valise_library_keep_derived (ValiseLibrary *library, ValiseModel *model, const char *made, const char *place, GError **error);
/* Files that are to become one may lie beside `place` from now on, also of a model outside the library. */
gboolean valise_library_note_derived (ValiseLibrary *library, ValiseModel *model, const char *place, GError **error);
/* Removes those of a key. Returns the bytes freed. */
guint64 valise_library_drop_derived (ValiseLibrary *library, const char *key);
/* Removes those of keys that are neither in `known` nor of unchanged files outside the library. Call with the home lock held. */
gboolean valise_library_sweep_derived (ValiseLibrary *library, GHashTable *known, GError **error);

/* The saved analysis of the bundled calibration text, else the newest of any text; NULL when there is none. */
char *valise_library_find_analysis (ValiseLibrary *library, const char *key);

/* ---- speed of this machine, for the plan ---- */
/* Loads what is known from the store; measures (under 100 ms) when that is little. */
void valise_bandwidth_prepare (ValiseLibrary *library);
/* Bytes of weights per second a decode step gets through. */
double valise_bandwidth_get (void);

/* ---- progress of a part within a whole ---- */
typedef struct {
  EngProgress progress;
  gpointer data;
  double begin, end;
} ValiseSpan;
void valise_span_report (double fraction, const char *what, gpointer span);

#endif
