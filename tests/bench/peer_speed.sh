#!/bin/sh
# peer_speed.sh: tokens per second beside llama.cpp at equal bytes: sh tests/bench/peer_speed.sh REFERENCE.gguf PEER_DIR TYPE...
# REFERENCE: float GGUF; PEER_DIR: holds llama-quantize, llama-imatrix and llama-bench; TYPE: Q4_0, Q3_K_S, Q2_K, IQ2_XXS ... For each: the peer's file, a fit
# of its size, and the peer's file in our engine, in turns; the best of each is kept. Environment: VALISE (the command), CALIBRATION (a text; the types below
# Q3_K want it), THREADS (2), ROUNDS (3), BPW (a fit of so many bits per weight instead of the file's size).
set -eu
[ $# -ge 3 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
reference=$1 peer=$2
shift 2
rounds=${ROUNDS:-3}
. "$(dirname "$0")/figures_common.sh"
larger () { python3 -c 'import sys; print(max(map(float, sys.argv[1:])))' "$@"; }

bench () { # NAME MODEL: keeps the best of NAME_pp and NAME_tg
  "$valise" bench "$2" --threads "$threads" --json > "$home/bench.json" 2> /dev/null
  eval "$1_pp=\$(larger \"\$$1_pp\" \"\$(get prompt_tokens_per_second < \"$home/bench.json\")\")"
  eval "$1_tg=\$(larger \"\$$1_tg\" \"\$(get generated_tokens_per_second < \"$home/bench.json\")\")"
}

if [ -n "${CALIBRATION:-}" ]; then
  "$peer/llama-imatrix" -m "$reference" -f "$CALIBRATION" -o "$home/imatrix" --chunks 8 -t "$threads" > /dev/null 2>&1
fi
for type; do
  "$peer/llama-quantize" ${CALIBRATION:+--imatrix "$home/imatrix"} "$reference" "$home/peer.gguf" "$type" > /dev/null 2>&1
  bytes=$(stat -c %s "$home/peer.gguf")
  if [ -n "${BPW:-}" ]; then
    "$valise" fit "$reference" --bpw "$BPW" -o "$home/fit.gguf" --json > /dev/null 2>&1
  else
    "$valise" fit "$reference" --size "$bytes" -o "$home/fit.gguf" --json > /dev/null 2>&1
  fi
  for name in fit same peer; do eval "${name}_pp=0 ${name}_tg=0"; done
  for _ in $(seq "$rounds"); do
    bench fit "$home/fit.gguf"
    bench same "$home/peer.gguf"
    "$peer/llama-bench" -m "$home/peer.gguf" -t "$threads" -p 512 -n 128 -r 1 -o json > "$home/peer.json" 2> /dev/null
    peer_pp=$(larger "$peer_pp" "$(get 0.avg_ts < "$home/peer.json")")
    peer_tg=$(larger "$peer_tg" "$(get 1.avg_ts < "$home/peer.json")")
  done
  row "$type: bytes, of our fit" "$bytes, $(stat -c %s "$home/fit.gguf")"
  row "prompt 512, tokens/s: llama.cpp $type" "$peer_pp"
  row "  our fit, ratio" "$fit_pp, $(ratio "$fit_pp" "$peer_pp")"
  row "  the same $type file in our engine, ratio" "$same_pp, $(ratio "$same_pp" "$peer_pp")"
  row "generate 128, tokens/s: llama.cpp $type" "$peer_tg"
  row "  our fit, ratio" "$fit_tg, $(ratio "$fit_tg" "$peer_tg")"
  row "  the same $type file in our engine, ratio" "$same_tg, $(ratio "$same_tg" "$peer_tg")"
done
