/* byte_alphabet.h: the characters that byte-level vocabularies write bytes with (GPT-2): those that print stand for themselves, the other 68
 * are numbered from U+0100 on. */
#ifndef ENG_BYTE_ALPHABET_H
#define ENG_BYTE_ALPHABET_H

#include <glib.h>

enum { ENG_BYTE_ALPHABET_END = 0x144 }; /* no character of it is beyond */

static inline guint32 eng_byte_character (guint8 byte)
{
  if (byte < 0x21)
    return 0x100u + byte;
  if (byte >= 0x7F && byte <= 0xA0)
    return 0x100u + 0x21 + (byte - 0x7Fu);
  return byte == 0xAD ? ENG_BYTE_ALPHABET_END - 1 : byte;
}

#endif
