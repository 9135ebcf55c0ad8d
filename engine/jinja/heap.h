/* heap.h: the memory of one parse or one rendering, bounded, freed at once; and the way out of it when something is wrong.
 * Everything a template makes lives here, so that jinja_fail may jump out from any depth and leak nothing. */
#ifndef ENG_JINJA_HEAP_H
#define ENG_JINJA_HEAP_H

#include <glib.h>
#include <setjmp.h>

typedef struct JinjaChunk JinjaChunk;

typedef struct {
  jmp_buf jump;     /* where jinja_fail goes; set by the owner before use */
  char *message;    /* what was wrong, owned by the heap */
  JinjaChunk *chunks;
  char *free;       /* rest of the newest chunk */
  gsize n_free;
  gsize used, limit; /* bytes */
} JinjaHeap;

void jinja_heap_init (JinjaHeap *heap, gsize limit);
void jinja_heap_clear (JinjaHeap *heap);
/* Zeroed, aligned for anything. */
gpointer jinja_alloc (JinjaHeap *heap, gsize bytes);
#define jinja_new(heap, Type, n) ((Type *) jinja_alloc_array ((heap), sizeof (Type), (n)))
gpointer jinja_alloc_array (JinjaHeap *heap, gsize size, gsize n);
/* Room for one more in a growing array: returns it, moved where it was full. */
gpointer jinja_grow (JinjaHeap *heap, gpointer array, gsize size, gsize n, gsize *capacity);
char *jinja_copy (JinjaHeap *heap, const char *text, gsize length); /* NUL-terminated */

/* line 0: the message stands alone. */
void jinja_fail (JinjaHeap *heap, guint line, const char *format, ...) G_GNUC_PRINTF (3, 4) G_GNUC_NORETURN;

#endif
