/* ops_isa.h: the sources for one instruction set, and the function that puts them into the table. */
#include "kernels/ops_tmpl.h"
#include "kernels/dense_tmpl.h"
#include "kernels/trellis_tmpl.h"

void XB_JOIN (xb_ops_init_, XB_SUFFIX) (xb_ops_table *t)
{
  *t = (xb_ops_table) {
    .rms_norm = rms_norm, .layer_norm = layer_norm, .rope_pairs = rope_pairs, .rope_halves = rope_halves, .silu_mul = silu_mul,
    .gelu_mul = gelu_mul, .add = add, .scale = scale, .softmax = softmax, .log_sum_exp = log_sum_exp, .argmax = argmax, .hadamard = hadamard,
    .kv_store = kv_store, .kv_load = kv_load, .attend_tokens = attend_tokens, .raw_matmul = raw_matmul, .raw_to_f32 = raw_to_f32, .f32_to_f16 = f32_to_f16,
    .gemm = gemm, .gemm_bf16 = gemm, .trellis_extend = trellis_extend,
  };
}
