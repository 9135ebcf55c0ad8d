/* heap.c: chunks of growing size, handed out from front to back and freed together. */
#include "engine/jinja/heap.h"

#include <string.h>

#define FIRST_CHUNK ((gsize) 16 << 10)
#define LARGEST_CHUNK ((gsize) 1 << 20)
#define ALIGNMENT 16

struct JinjaChunk {
  JinjaChunk *next;
  gsize bytes;
};

#define HEADER ((sizeof (JinjaChunk) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT)

void jinja_heap_init (JinjaHeap *heap, gsize limit)
{
  memset (heap, 0, sizeof *heap);
  heap->limit = limit;
}

void jinja_heap_clear (JinjaHeap *heap)
{
  for (JinjaChunk *chunk = heap->chunks, *next; chunk != NULL; chunk = next) {
    next = chunk->next;
    g_free (chunk);
  }
  heap->chunks = NULL;
  g_clear_pointer (&heap->message, g_free);
}

gpointer jinja_alloc (JinjaHeap *heap, gsize bytes)
{
  bytes = bytes > heap->limit ? heap->limit + 1 : (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  if (bytes > heap->limit - MIN (heap->used, heap->limit))
    jinja_fail (heap, 0, "the chat template uses more than %" G_GSIZE_FORMAT " MB of memory; it is broken or hostile, choose another",
                heap->limit / 1000000);
  if (bytes > heap->n_free) {
    gsize size = heap->chunks == NULL ? FIRST_CHUNK : MIN (heap->chunks->bytes * 2, LARGEST_CHUNK);
    size = MAX (size, bytes);
    JinjaChunk *chunk = g_malloc0 (HEADER + size);
    chunk->bytes = MIN (size, LARGEST_CHUNK);
    chunk->next = heap->chunks;
    heap->chunks = chunk;
    heap->free = (char *) chunk + HEADER;
    heap->n_free = size;
  }
  gpointer memory = heap->free;
  heap->free += bytes;
  heap->n_free -= bytes;
  heap->used += bytes;
  return memory;
}

gpointer jinja_alloc_array (JinjaHeap *heap, gsize size, gsize n)
{
  return jinja_alloc (heap, n > G_MAXSIZE / 2 / size ? G_MAXSIZE / 2 : n * size);
}

gpointer jinja_grow (JinjaHeap *heap, gpointer array, gsize size, gsize n, gsize *capacity)
{
  if (n < *capacity)
    return array;
  *capacity = MAX (4, *capacity * 2);
  gpointer larger = jinja_alloc_array (heap, size, *capacity);
  if (n > 0)
    memcpy (larger, array, n * size);
  return larger;
}

char *jinja_copy (JinjaHeap *heap, const char *text, gsize length)
{
  char *copy = jinja_alloc (heap, length + 1);
  memcpy (copy, text, length);
  return copy;
}

void jinja_fail (JinjaHeap *heap, guint line, const char *format, ...)
{
  va_list arguments;
  va_start (arguments, format);
  g_autofree char *what = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  g_free (heap->message);
  heap->message = line > 0 ? g_strdup_printf ("chat template, line %u: %s", line, what) : g_strdup (what);
  g_clear_pointer (&what, g_free); /* the jump runs no cleanup */
  longjmp (heap->jump, 1);
}
