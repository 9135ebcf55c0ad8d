#!/bin/sh
# peer_quality.sh: fits beside llama.cpp's files of the same bytes: sh tests/bench/peer_quality.sh REFERENCE.gguf TEXT CALIBRATION PEER_DIR TYPE...
# REFERENCE: float GGUF; TEXT: evaluation text; CALIBRATION: text of the importance matrix; PEER_DIR: holds llama-quantize and llama-imatrix.
# Their files are computed with exact activations, fits with 8 bits. Environment: VALISE (the command), CHUNKS (8), THREADS (2), IMATRIX_CHUNKS (60).
set -eu
[ $# -ge 5 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
reference=$1 text=$2 calibration=$3 peer=$4
shift 4
chunks=${CHUNKS:-8}
. "$(dirname "$0")/figures_common.sh"

divergence () {
  "$valise" eval "$1" --text "$text" --chunks "$chunks" --reference "$reference" --activations "$2" --threads "$threads" --json 2> /dev/null | get kl_divergence.mean
}

"$peer/llama-imatrix" -m "$reference" -f "$calibration" -o "$home/imatrix" -c 512 --chunks "${IMATRIX_CHUNKS:-60}" -t "$threads" > /dev/null 2>&1
for type; do
  "$peer/llama-quantize" --imatrix "$home/imatrix" "$reference" "$home/peer.gguf" "$type" "$threads" > /dev/null 2>&1
  bytes=$(stat -c %s "$home/peer.gguf")
  "$valise" fit "$reference" --size "$bytes" --threads "$threads" -o "$home/fit.gguf" > /dev/null 2>&1
  theirs=$(divergence "$home/peer.gguf" 32) ours=$(divergence "$home/fit.gguf" 8)
  row "$type, $bytes bytes: theirs, ours, ratio" "$theirs, $ours, $(ratio "$ours" "$theirs")"
  rm -f "$home/peer.gguf" "$home/fit.gguf"
done
