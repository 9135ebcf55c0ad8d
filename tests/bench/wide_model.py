#!/usr/bin/env python3
"""wide_model.py: a Llama of random weights whose widths are multiples of 256, to time every type of llama.cpp at its own depth.

python3 tests/bench/wide_model.py SOURCE.gguf OUT.gguf [LAYERS]    (needs numpy and gguf from PyPI; SOURCE lends its tokenizer)
1536 channels, 24 heads of 64 of which 8 hold keys, 4096 hidden channels, F16. Its answers mean nothing; its speed is that of any model of the shape.
"""
import sys

import numpy
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter

EMBD, HEADS, KV_HEADS, FF = 1536, 24, 8, 4096


def main():
    source, out = GGUFReader(sys.argv[1]), sys.argv[2]
    layers = int(sys.argv[3]) if len(sys.argv) > 3 else 8
    writer = GGUFWriter(out, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(2048)
    writer.add_embedding_length(EMBD)
    writer.add_feed_forward_length(FF)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(EMBD // HEADS)
    for name, field in source.fields.items():
        if name.startswith("tokenizer."):
            kind = field.types[0]
            sub = field.types[-1] if kind == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, sub_type=sub)
    vocab = len(source.fields["tokenizer.ggml.tokens"].data)
    writer.add_vocab_size(vocab)
    rng = numpy.random.default_rng(1)

    def matrix(name, rows, cols):
        w = rng.standard_normal((rows, cols), dtype=numpy.float32) / numpy.sqrt(cols)
        writer.add_tensor(name, w.astype(numpy.float16), raw_dtype=GGMLQuantizationType.F16)

    matrix("token_embd.weight", vocab, EMBD)
    writer.add_tensor("output_norm.weight", numpy.ones(EMBD, numpy.float32))
    for i in range(layers):
        block = f"blk.{i}."
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}{norm}.weight", numpy.ones(EMBD, numpy.float32))
        kv = EMBD // HEADS * KV_HEADS
        for name, rows, cols in (("attn_q", EMBD, EMBD), ("attn_k", kv, EMBD), ("attn_v", kv, EMBD), ("attn_output", EMBD, EMBD),
                                 ("ffn_gate", FF, EMBD), ("ffn_up", FF, EMBD), ("ffn_down", EMBD, FF)):
            matrix(f"{block}{name}.weight", rows, cols)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main()
