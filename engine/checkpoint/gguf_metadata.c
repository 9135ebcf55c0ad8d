/* gguf_metadata.c: the keys of an open GGUF, converted as the caller asks. Nothing here reads a byte that opening has not checked. */
#include <string.h>

#include "engine/checkpoint/gguf_private.h"

guint eng_kv_size (EngKvType type)
{
  switch (type) {
  case ENG_KV_U8: case ENG_KV_I8: case ENG_KV_BOOL: return 1;
  case ENG_KV_U16: case ENG_KV_I16: return 2;
  case ENG_KV_U32: case ENG_KV_I32: case ENG_KV_F32: return 4;
  case ENG_KV_U64: case ENG_KV_I64: case ENG_KV_F64: return 8;
  default: return 0;
  }
}

static const EngKey *find_key (const EngGguf *gguf, const char *name)
{
  guint i = GPOINTER_TO_UINT (g_hash_table_lookup (gguf->key_index, name));
  return i ? &g_array_index (gguf->keys, EngKey, i - 1) : NULL;
}

guint eng_gguf_n_keys (const EngGguf *gguf)
{
  return gguf->keys->len;
}

const char *eng_gguf_key (const EngGguf *gguf, guint i)
{
  g_return_val_if_fail (i < gguf->keys->len, NULL);
  return g_array_index (gguf->keys, EngKey, i).name;
}

gboolean eng_gguf_has (const EngGguf *gguf, const char *name)
{
  return find_key (gguf, name) != NULL;
}

EngKvType eng_gguf_kv_type (const EngGguf *gguf, const char *name)
{
  const EngKey *key = find_key (gguf, name);
  return key ? key->type : ENG_KV_U8;
}

static gboolean is_number (EngKvType type)
{
  return type != ENG_KV_STRING && type != ENG_KV_ARRAY;
}

/* A number of any kind as f64 and, where it can be one, as an integer; FALSE when it cannot (a NaN, or beyond 63 bits). */
static gboolean number_at (EngKvType type, const guint8 *p, gint64 *integer, double *real)
{
  gint64 v = 0;
  switch (type) {
  case ENG_KV_U8: case ENG_KV_BOOL: v = *p; break;
  case ENG_KV_I8: v = (gint8) *p; break;
  case ENG_KV_U16: v = p[0] | p[1] << 8; break;
  case ENG_KV_I16: v = (gint16) (p[0] | p[1] << 8); break;
  case ENG_KV_U32: v = eng_u32_at (p); break;
  case ENG_KV_I32: v = (gint32) eng_u32_at (p); break;
  case ENG_KV_I64: v = (gint64) eng_u64_at (p); break;
  case ENG_KV_U64:
    *real = (double) eng_u64_at (p);
    *integer = (gint64) eng_u64_at (p);
    return *integer >= 0;
  default: {
    guint32 bits32 = eng_u32_at (p);
    float f;
    memcpy (&f, &bits32, sizeof f);
    *real = (double) f;
    if (type == ENG_KV_F64) {
      guint64 bits64 = eng_u64_at (p);
      memcpy (real, &bits64, sizeof *real);
    }
    gboolean fits = *real >= -0x1p63 && *real < 0x1p63;
    *integer = fits ? (gint64) *real : 0;
    return fits;
  }
  }
  *integer = v;
  *real = (double) v;
  return TRUE;
}

gint64 eng_gguf_get_int (const EngGguf *gguf, const char *name, gint64 fallback)
{
  const EngKey *key = find_key (gguf, name);
  gint64 integer;
  double real;
  return key && is_number (key->type) && number_at (key->type, key->data, &integer, &real) ? integer : fallback;
}

double eng_gguf_get_float (const EngGguf *gguf, const char *name, double fallback)
{
  const EngKey *key = find_key (gguf, name);
  gint64 integer;
  double real;
  if (!key || !is_number (key->type))
    return fallback;
  number_at (key->type, key->data, &integer, &real);
  return real;
}

gboolean eng_gguf_get_bool (const EngGguf *gguf, const char *name, gboolean fallback)
{
  return eng_gguf_get_int (gguf, name, fallback) != 0;
}

const char *eng_gguf_get_string (const EngGguf *gguf, const char *name, const char *fallback)
{
  const EngKey *key = find_key (gguf, name);
  return key && key->type == ENG_KV_STRING ? key->string : fallback;
}

gsize eng_gguf_array_length (const EngGguf *gguf, const char *name, EngKvType *kind)
{
  const EngKey *key = find_key (gguf, name);
  if (!key || key->type != ENG_KV_ARRAY)
    return 0;
  if (kind)
    *kind = key->element;
  return key->count;
}

const char *eng_gguf_array_string (const EngGguf *gguf, const char *name, gsize i, gsize *length)
{
  const EngKey *key = find_key (gguf, name);
  *length = 0;
  if (!key || key->type != ENG_KV_ARRAY || key->element != ENG_KV_STRING || i >= key->count)
    return NULL;
  const guint8 *p = key->data + key->offsets[i / ENG_STRING_STRIDE];
  for (gsize skip = i % ENG_STRING_STRIDE; skip > 0; skip--)
    p += 8 + eng_u64_at (p);
  *length = eng_u64_at (p);
  return (const char *) p + 8;
}

/* Element i of an array of numbers, NULL when there is none. */
static const EngKey *find_number (const EngGguf *gguf, const char *name, gsize i, const guint8 **at)
{
  const EngKey *key = find_key (gguf, name);
  if (!key || key->type != ENG_KV_ARRAY || !is_number (key->element) || i >= key->count)
    return NULL;
  *at = key->data + i * eng_kv_size (key->element);
  return key;
}

gint64 eng_gguf_array_int (const EngGguf *gguf, const char *name, gsize i)
{
  const guint8 *at = NULL;
  gint64 integer;
  double real;
  const EngKey *key = find_number (gguf, name, i, &at);
  return key && number_at (key->element, at, &integer, &real) ? integer : 0;
}

double eng_gguf_array_float (const EngGguf *gguf, const char *name, gsize i)
{
  const guint8 *at = NULL;
  gint64 integer;
  double real = 0;
  const EngKey *key = find_number (gguf, name, i, &at);
  if (key)
    number_at (key->element, at, &integer, &real);
  return real;
}

const guint8 *eng_gguf_raw_value (const EngGguf *gguf, guint i, gsize *size)
{
  const EngKey *key = &g_array_index (gguf->keys, EngKey, i);
  *size = key->raw_bytes;
  return key->raw;
}
