/* fuzz_tokenizer_json.c: any bytes as a tokenizer.json and its configurations: refused with a sentence, or a text can be encoded. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/tokenizer_files.h"

#include <string.h>

int LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  g_autoptr (GBytes) bytes = g_bytes_new (data, size);
  EngVocabFiles files = { .folder = "fuzz", .tokenizer_json = bytes, .tokenizer_config = bytes, .generation_config = bytes };
  check_tokenizer_files (&files);
  return 0;
}

GByteArray *fuzz_seed (guint i)
{
  static const char *const seeds[] = {
    "{\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true,\"lstrip\":true,\"rstrip\":true,\"single_word\":false,\"normalized\":true}],"
    "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
    "\"(?i:'s|'t)|[^\\\\r\\\\n\\\\p{L}]?\\\\p{L}+|\\\\p{N}{1,3}|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\",\"invert\":false},"
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":false}]},\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":"
    "[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\"}}]},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[[\"a\",\"b\"]],\"ignore_merges\":true}}",
    "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\xE2\x96\x81\"},{\"type\":\"Replace\",\"pattern\":"
    "{\"String\":\" \"},\"content\":\"\xE2\x96\x81\"}]},\"model\":{\"type\":\"BPE\",\"unk_token\":\"u\",\"fuse_unk\":true,\"byte_fallback\":true,"
    "\"vocab\":{\"u\":0,\"<0x41>\":1,\"\xE2\x96\x81\":2,\"t\":3},\"merges\":[\"\xE2\x96\x81 t\"]}}",
    "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"DAAAAEEBAAAAAAAAAQAAAGIAAAA=\"},\"pre_tokenizer\":{\"type\":\"Metaspace\","
    "\"replacement\":\"\xE2\x96\x81\",\"prepend_scheme\":\"always\",\"split\":true},\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":"
    "[[\"u\",0.0],[\"\xE2\x96\x81\",-1.5],[\"a\",-2],[\"ab\",-2.5]]}}",
    "{\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\","
    "\"continuing_subword_prefix\":\"##\",\"vocab\":{\"[UNK]\":0,\"the\":1,\"##b\":2,\"a\":3}}}",
    "{\"bos_token\":\"<s>\",\"added_tokens_decoder\":{\"0\":{\"content\":\"<s>\",\"special\":true}},\"chat_template\":[{\"name\":\"default\",\"template\":\"x\"}],"
    "\"eos_token_id\":[1,2],\"temperature\":0.7}",
  };
  return i < G_N_ELEMENTS (seeds) ? g_byte_array_new_take ((guint8 *) g_strdup (seeds[i]), strlen (seeds[i])) : NULL;
}
