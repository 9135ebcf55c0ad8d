/* specials.c: finding control and added tokens in a text, the longest at each place. */
#include "engine/tokenizer/tokenizer_private.h"

#include <string.h>

static gint compare_specials (gconstpointer a, gconstpointer b, gpointer bytes)
{
  const EngSpecial *x = a, *y = b;
  const guint8 *data = ((const GByteArray *) bytes)->data;
  int order = memcmp (data + x->offset, data + y->offset, MIN (x->length, y->length));
  if (order != 0 || x->length != y->length)
    return order != 0 ? order : x->length < y->length ? -1 : 1;
  return (x->token > y->token) - (x->token < y->token);
}

static void add_special (EngSpecials *specials, guint32 token, const char *text, gsize length)
{
  EngSpecial special = { token, specials->bytes->len, (guint32) length };
  if (length == 0)
    return;
  g_byte_array_append (specials->bytes, (const guint8 *) text, (guint) length);
  g_array_append_val (specials->list, special);
  specials->first[(guint8) *text] = TRUE;
}

void eng_specials_build (EngTokenizer *t)
{
  EngSpecials *both[] = { &t->specials, &t->normalized_specials };
  for (guint i = 0; i < G_N_ELEMENTS (both); i++) {
    both[i]->list = g_array_new (FALSE, FALSE, sizeof (EngSpecial));
    both[i]->bytes = g_byte_array_new ();
  }
  for (guint32 token = 0; token < t->n_tokens; token++) {
    gsize length;
    const char *text = eng_token_text (t, token, &length);
    if ((t->flags[token] & (ENG_TOKEN_CONTROL | ENG_TOKEN_USER_DEFINED)) == 0)
      continue;
    if ((t->flags[token] & ENG_TOKEN_NORMALIZED) == 0) {
      add_special (&t->specials, token, text, length);
      continue;
    }
    g_autoptr (GString) normalized = g_string_new_len (text, (gssize) length);
    eng_normalizer_apply (t->normalizer, normalized);
    add_special (&t->normalized_specials, token, normalized->str, normalized->len);
  }
  for (guint i = 0; i < G_N_ELEMENTS (both); i++)
    g_array_sort_with_data (both[i]->list, compare_specials, both[i]->bytes);
}

void eng_specials_clear (EngSpecials *specials)
{
  g_clear_pointer (&specials->list, g_array_unref);
  g_clear_pointer (&specials->bytes, g_byte_array_unref);
}

/* First of list[low, high), all alike in their first `depth` bytes, whose next byte is at least `byte`. */
static guint32 lower_bound (const EngSpecials *specials, guint32 low, guint32 high, gsize depth, guint byte)
{
  while (low < high) {
    guint32 middle = low + (high - low) / 2;
    const EngSpecial *special = &g_array_index (specials->list, EngSpecial, middle);
    if (special->length <= depth || specials->bytes->data[special->offset + depth] < byte)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

guint32 eng_specials_match (const EngTokenizer *t, const EngSpecials *specials, const char *text, const char *end, const char *control_end, gsize *length)
{
  guint32 found = ENG_NO_TOKEN, low = 0, high = specials->list->len;
  if (!specials->first[(guint8) *text])
    return found;
  for (gsize depth = 0; text + depth < end && low < high; depth++) {
    guint byte = (guint8) text[depth];
    low = lower_bound (specials, low, high, depth, byte);
    high = lower_bound (specials, low, high, depth, byte + 1);
    /* The shortest of those left comes first: it may end right here. Of equal texts the lowest token number counts. */
    for (guint32 i = low; i < high; i++) {
      const EngSpecial *special = &g_array_index (specials->list, EngSpecial, i);
      if (special->length != depth + 1)
        break;
      if (text + special->length <= control_end || (t->flags[special->token] & (ENG_TOKEN_CONTROL | ENG_TOKEN_STRUCTURE)) == 0) {
        found = special->token;
        *length = special->length;
        break;
      }
    }
  }
  return found;
}
