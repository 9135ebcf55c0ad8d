/* library.h: the person's library: SQLite store (WAL, foreign keys, versioned migrations), models, fits, chats, messages, and the
 * content-addressed files they stand for. Shared by the command and the window. Every call may come from any thread (one
 * connection, serialised inside); calls marked "slow" belong on a worker thread. Signals are emitted on the default main context. */
#ifndef VALISE_LIBRARY_H
#define VALISE_LIBRARY_H

#include <gio/gio.h>
#include <json-glib/json-glib.h>

#include "engine/checkpoint/checkpoint.h"
#include "engine/memory_plan.h"
#include "engine/sampler.h"
#include "quantizer/fit.h"

G_BEGIN_DECLS

#define VALISE_ERROR (valise_error_quark ())
GQuark valise_error_quark (void);
typedef enum {
  VALISE_ERROR_NOT_FOUND, VALISE_ERROR_EXISTS, VALISE_ERROR_UNSAFE, /* an archive that escapes or explodes */
  VALISE_ERROR_TOO_SMALL, VALISE_ERROR_DAMAGED, VALISE_ERROR_BUSY, VALISE_ERROR_ARGUMENT, VALISE_ERROR_STORE, VALISE_ERROR_NO_SPACE
} ValiseError;

/* ---- sizes: "96M", "1.5G" powers of ten, "900MiB" binary, "12345" bytes ------------------------------------------------------ */
gboolean valise_size_parse (const char *text, guint64 *bytes, GError **error);
char *valise_size_format (guint64 bytes); /* "96.0 MB" for people */

/* ---- models: a snapshot of one row, immutable -------------------------------------------------------------------------------- */
typedef enum { VALISE_MODEL_CHECKPOINT, VALISE_MODEL_FIT } ValiseModelKind;
#define VALISE_TYPE_MODEL (valise_model_get_type ())
G_DECLARE_FINAL_TYPE (ValiseModel, valise_model, VALISE, MODEL, GObject)
gint64 valise_model_get_id (ValiseModel *model);        /* 0: a file outside the library */
const char *valise_model_get_name (ValiseModel *model); /* unique in the library */
ValiseModelKind valise_model_get_kind (ValiseModel *model);
const char *valise_model_get_architecture (ValiseModel *model);
guint64 valise_model_get_parameters (ValiseModel *model);
guint64 valise_model_get_bytes (ValiseModel *model);
double valise_model_get_bpw (ValiseModel *model);
const char *valise_model_get_license (ValiseModel *model);
const char *valise_model_get_source (ValiseModel *model);  /* where it came from: file, URL, or the fit's checkpoint's name */
const char *valise_model_get_path (ValiseModel *model);
const char *valise_model_get_sha256 (ValiseModel *model);
gint64 valise_model_get_parent (ValiseModel *model);       /* fit: its checkpoint's id, else 0 */
double valise_model_get_kl (ValiseModel *model);           /* fit: measured; NaN when unknown */
guint valise_model_get_context (ValiseModel *model);       /* trained context */
/* Whether the model sees pictures as well, of which Valise computes the text part only: read from its file. */
gboolean valise_model_sees_pictures (ValiseModel *model);
/* What the model's file is, how its weights were made and what becomes of them, read from it. NULL with an error when it cannot be opened. */
EngCheckpointSource *valise_model_describe_weights (ValiseModel *model, GError **error);
/* "GGUF, mostly Q4_K, 4.50 bits, groups of 32". Free with g_free. */
char *valise_weights_text (const EngCheckpointSource *weights);
JsonObject *valise_weights_to_json (const EngCheckpointSource *weights); /* owned by the caller */
/* A fit's depths, bytes and losses, promised and measured, as one HTML file without anything from outside. */
gboolean valise_model_write_report (ValiseModel *model, const char *path, GError **error);
void valise_json_set_number (JsonObject *object, const char *name, double value); /* null unless finite */
JsonObject *valise_model_to_json (ValiseModel *model);     /* as `valise show --json`; owned by the caller */

/* ---- the library --------------------------------------------------------------------------------------------------------------- */
#define VALISE_TYPE_LIBRARY (valise_library_get_type ())
G_DECLARE_FINAL_TYPE (ValiseLibrary, valise_library, VALISE, LIBRARY, GObject)
/* Signals: "models-changed" (), "chats-changed" (). */

/* home NULL: $VALISE_HOME, else $XDG_DATA_HOME/valise. Creates it, migrates, sweeps temporaries of dead processes. */
ValiseLibrary *valise_library_open (const char *home, GError **error);
const char *valise_library_get_home (ValiseLibrary *library);
GPtrArray *valise_library_list_models (ValiseLibrary *library, GError **error); /* of ValiseModel, checkpoints then their fits */
/* A library name, or a file's path. */
ValiseModel *valise_library_find_model (ValiseLibrary *library, const char *name_or_path, GError **error);
/* Slow. A .gguf, a directory, an archive (.whl .zip .tar.*), an Ollama manifest or a hub cache folder; a copy into the store. name NULL: from the
 * source. */
ValiseModel *valise_library_import (ValiseLibrary *library, const char *source, const char *name, EngProgress progress, gpointer data,
                                    GCancellable *cancellable, GError **error);
/* Slow (it is hashed). The same, but the files stay where they are and are never written or removed by the library. */
ValiseModel *valise_library_link (ValiseLibrary *library, const char *source, const char *name, EngProgress progress, gpointer data,
                                  GCancellable *cancellable, GError **error);
/* Removes row and file (and its caches); a checkpoint's fits stay. freed_bytes may be NULL. */
gboolean valise_library_remove (ValiseLibrary *library, ValiseModel *model, guint64 *freed_bytes, GError **error);
gboolean valise_library_rename (ValiseLibrary *library, ValiseModel *model, const char *name, GError **error);
/* Slow. Copies the file out, whole or not at all. */
gboolean valise_library_export (ValiseLibrary *library, ValiseModel *model, const char *path, EngProgress progress, gpointer data,
                                GCancellable *cancellable, GError **error);
/* Slow. The same as an archive (.tar.zst, .tar, .zip) with a card and checksums, which an import holds it to. */
gboolean valise_library_export_archive (ValiseLibrary *library, ValiseModel *model, const char *path, EngProgress progress, gpointer data,
                                        GCancellable *cancellable, GError **error);
/* Slow. As a GGUF file of standard types that other programs read, of at most `bytes` bytes (0: the model's own); a fit's from the model that it was made
 * of. Each matrix gets the type that brings the most for its bytes (quantizer/plain.h), by its curves, which are estimates until it was analysed. */
gboolean valise_library_export_plain (ValiseLibrary *library, ValiseModel *model, const char *path, guint64 bytes, EngProgress progress, gpointer data,
                                      GCancellable *cancellable, GError **error);
/* Whether a file's name asks for one. */
gboolean valise_is_archive_name (const char *path);
/* Slow. Re-reads the file against its checksum and structure; FALSE with what is wrong. */
gboolean valise_library_verify (ValiseLibrary *library, ValiseModel *model, EngProgress progress, gpointer data,
                                GCancellable *cancellable, GError **error);
/* Slow the first time for quantized checkpoints (writes the packed cache). Opens the model to compute with. */
EngModel *valise_library_open_model (ValiseLibrary *library, ValiseModel *model, EngProgress progress, gpointer data,
                                     GCancellable *cancellable, GError **error);

/* ---- plan and fit -------------------------------------------------------------------------------------------------------------- */
typedef struct {
  guint64 ram_bytes, size_bytes; /* exactly one of ram_bytes, size_bytes, bpw, bits is not 0 */
  double bpw;
  guint bits;                    /* 1 to 8, of every weight */
  QzQuality quality;
  QzMethod method;               /* all but QZ_METHOD_XBIT take bits */
  QzAllocation allocation;       /* as in QzTarget */
  guint64 seed;                  /* of all that is drawn */
  guint context;                 /* 0: 4096 capped to the model's own */
  int kv_bits;                   /* 16, 8, 4; 0: 16 */
  guint threads;                 /* 0: default */
  guint64 program_base_bytes;    /* valise_program_base_bytes (window or terminal) */
  guint64 memory_bytes;          /* that making the fit may hold, 0: as is best */
} ValiseTarget;

typedef struct {
  EngMemoryPlan memory;
  guint64 file_target_bytes;     /* what qz_fit is given */
  guint64 smallest_ram_bytes;    /* the least budget that can be met at this context */
  guint64 fit_memory_bytes;      /* that making the fit holds at most (qz_fit_memory); 0 where only curves are known */
  double bpw, expected_kl, expected_top1, expected_tokens_per_second;
  gboolean is_estimate;          /* no saved curves yet */
  double source_bits;            /* that a quantized checkpoint has (qz_source_bits); 0: it holds floats, or only curves are known */
} ValisePlan;

/* What a process of this kind costs without a model. */
guint64 valise_program_base_bytes (gboolean window);
/* The session a chat of this context and KV depth runs in: what plans, the window and the command all use. context 0 and kv_bits 0: what
 * the fit was planned for, else 4096 capped to the model's own and 16. Refuses what the model was not trained for. */
gboolean valise_session_options (const EngTraits *traits, guint context, int kv_bits, EngSessionOptions *options, GError **error);
/* The model's curves: saved ones, else an estimate. Quick; cache it and preview with valise_plan_with_curves (microseconds). */
QzCurves *valise_library_get_curves (ValiseLibrary *library, ValiseModel *model, GError **error);
gboolean valise_plan_with_curves (QzCurves *curves, const EngTraits *traits, const ValiseTarget *target, ValisePlan *plan, GError **error);
gboolean valise_library_plan (ValiseLibrary *library, ValiseModel *model, const ValiseTarget *target, ValisePlan *plan, GError **error);
JsonObject *valise_plan_to_json (const ValisePlan *plan);
/* Stands for a calibration text's path: the model observes what it writes itself. */
#define VALISE_CALIBRATION_SELF "self"
/* Slow. Runs (and saves) the analysis if there is none for this calibration. Analyses and fits that were ended, by a cancellable or a signal, go on
 * where they were when they are asked for again. */
gboolean valise_library_analyse (ValiseLibrary *library, ValiseModel *model, const char *calibration_path, EngProgress progress, gpointer data,
                                 GCancellable *cancellable, GError **error);
/* Slow. output: NULL, a library name, or a path ending in .gguf (then it is not in the library). Returns the fit; plan: of what was made. */
ValiseModel *valise_library_fit (ValiseLibrary *library, ValiseModel *model, const ValiseTarget *target, const char *output,
                                 const char *calibration_path, ValisePlan *plan, QzResult *result, EngProgress progress, gpointer data,
                                 GCancellable *cancellable, GError **error);

/* ---- hardware ---------------------------------------------------------------------------------------------------------------------- */
JsonObject *valise_hardware_to_json (void); /* as `valise hardware --json` */

/* ---- chats: a tree of messages; the shown branch is the path from the root to the chat's leaf -------------------------------------- */
typedef struct {
  gint64 id;
  char *title;
  gint64 model_id;         /* 0: none */
  char *system_prompt;     /* "" : none */
  gboolean pinned;
  gint64 leaf_id;          /* 0: empty */
  gint64 created_us, updated_us;
  EngSamplerOptions sampling;
} ValiseChat;
#define VALISE_TYPE_CHAT (valise_chat_get_type ())
GType valise_chat_get_type (void);
ValiseChat *valise_chat_copy (const ValiseChat *chat);
void valise_chat_free (ValiseChat *chat);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (ValiseChat, valise_chat_free)

typedef struct {
  gint64 id, chat_id, parent_id; /* parent 0: a root */
  char *role;                    /* "user", "assistant" */
  char *content;
  char *model_name;              /* assistant: who answered */
  double tokens_per_second;      /* assistant */
  char *finish_reason;           /* assistant: "stop", "length", "cancelled", "" while being written */
  double thought_seconds;        /* assistant: how long it took to think; 0: it did not, or nobody measured */
  gint64 created_us;
  guint sibling, n_siblings;     /* 1-based place among the parent's children */
} ValiseMessage;
#define VALISE_TYPE_MESSAGE (valise_message_get_type ())
GType valise_message_get_type (void);
/* An answer's content may begin with the model's reasoning, between these; valise_message_answer is what follows: the answer itself. */
#define VALISE_REASONING_BEGIN "<think>\n"
#define VALISE_REASONING_END "\n</think>\n\n"
const char *valise_message_answer (const char *content);
ValiseMessage *valise_message_copy (const ValiseMessage *message);
void valise_message_free (ValiseMessage *message);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (ValiseMessage, valise_message_free)

ValiseChat *valise_library_create_chat (ValiseLibrary *library, gint64 model_id, GError **error);
ValiseChat *valise_library_get_chat (ValiseLibrary *library, gint64 id, GError **error);
GPtrArray *valise_library_list_chats (ValiseLibrary *library, const char *search, GError **error); /* of ValiseChat; pinned, then newest; search NULL: all */
gboolean valise_library_update_chat (ValiseLibrary *library, const ValiseChat *chat, GError **error); /* title, model, system prompt, pinned, leaf, sampling */
gboolean valise_library_delete_chat (ValiseLibrary *library, gint64 id, GError **error);   /* to the bin: undelete brings it back until the next open */
gboolean valise_library_undelete_chat (ValiseLibrary *library, gint64 id, GError **error);
GPtrArray *valise_library_get_branch (ValiseLibrary *library, gint64 chat_id, GError **error); /* of ValiseMessage, root to leaf */
/* Adds a message and makes it the leaf. Returns its id, 0 on error. */
gint64 valise_library_add_message (ValiseLibrary *library, gint64 chat_id, gint64 parent_id, const char *role, const char *content, GError **error);
gboolean valise_library_update_message (ValiseLibrary *library, const ValiseMessage *message, GError **error);
/* Shows sibling number n (1-based) of the message: the leaf becomes the newest descendant of it. */
gboolean valise_library_select_sibling (ValiseLibrary *library, gint64 message_id, guint n, GError **error);
/* "markdown" or "json". */
char *valise_library_export_chat (ValiseLibrary *library, gint64 chat_id, const char *format, GError **error);

G_END_DECLS
#endif
