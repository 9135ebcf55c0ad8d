#!/bin/sh
# figures.sh: the README's figures, measured: sh tests/bench/figures.sh REFERENCE.gguf STARTER TEXT [PEER_DIR]
# REFERENCE: float GGUF; STARTER: the starter model's wheel or GGUF; TEXT: evaluation text; PEER_DIR: holds llama-perplexity, llama-quantize and
# llama-bench, for figures beside llama.cpp's in one run. Environment: VALISE (the command), CHUNKS (20), THREADS (2), ROUNDS (3).
set -eu
[ $# -ge 3 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
reference=$1 starter=$2 text=$3 peer=${4:-}
chunks=${CHUNKS:-20}
. "$(dirname "$0")/figures_common.sh"

row "CPU" "$("$valise" hardware --json | get cpu.model), $threads threads, $("$valise" hardware --json | get cpu.selected)"

# 1. Perplexity of the float reference.
ours=$("$valise" eval "$reference" --text "$text" --chunks "$chunks" --json 2> /dev/null | get ppl)
row "PPL of the reference, $chunks chunks" "$ours"
if [ -n "$peer" ]; then
  theirs=$("$peer/llama-perplexity" -m "$reference" -f "$text" -c 512 --chunks "$chunks" -t "$threads" 2>&1 | sed -n 's/.*Final estimate: PPL = \([0-9.]*\).*/\1/p')
  row "  llama.cpp, ratio" "$theirs, $(ratio "$ours" "$theirs")"
fi

# 2. Quality at 90 MB.
"$valise" fit "$reference" --size 90M -o "$home/size.gguf" --json > "$home/size.json" 2> /dev/null
row "fit --size 90M: bytes" "$(stat -c %s "$home/size.gguf")"
row "  seconds" "$(get seconds < "$home/size.json")"
"$valise" eval "$home/size.gguf" --text "$text" --chunks "$chunks" --reference "$reference" --json > "$home/eval.json" 2> /dev/null
row "  PPL, mean KL, top-1 agreement" "$(get ppl < "$home/eval.json"), $(get kl_divergence.mean < "$home/eval.json"), $(get top1_agreement < "$home/eval.json")"

# 3. The promise in RAM: a chat that fills the context, free and inside a limit.
"$valise" fit "$reference" --ram 160M --context 1024 -o "$home/ram.gguf" --json > "$home/ram.json" 2> /dev/null
plan=$(get total_bytes < "$home/ram.json")
# The longest prompt of whole hundreds of bytes that leaves room for an answer.
for bytes in $(seq 5000 -100 2000); do
  prompt=$(head -c "$bytes" "$text" | iconv -c -f utf-8 -t utf-8)
  "$valise" chat "$home/ram.gguf" --context 1024 --prompt "$prompt" --max-tokens 1024 --temp 1 --seed 1 --json > "$home/chat.json" 2> /dev/null && break
done
peak=$(get peak_rss_bytes < "$home/chat.json")
row "fit --ram 160M --context 1024: plan" "$plan"
row "  peak RSS of a chat, over plan" "$peak ($(get prompt_tokens < "$home/chat.json") + $(get generated_tokens < "$home/chat.json") tokens), $(ratio "$peak" "$plan")"
group=/sys/fs/cgroup/memory/valise-figures
if mkdir "$group" 2> /dev/null && echo 160000000 > "$group/memory.limit_in_bytes" 2> /dev/null; then
  sh -c 'echo $$ > "$1/cgroup.procs"; shift; exec "$@"' sh "$group" "$valise" chat "$home/ram.gguf" --context 1024 --prompt "$prompt" \
    --max-tokens 1024 --temp 1 --seed 1 --json > "$home/group.json" 2> /dev/null && row "  in a cgroup of 160,000,000 bytes" "$(get generated_tokens_per_second < "$home/group.json") tokens/s" || row "  in a cgroup of 160,000,000 bytes" "KILLED"
  rmdir "$group"
fi

# 4. Speed at 4 bits, alternating with the peer.
if [ -n "$peer" ]; then
  BPW=4.5 sh "$(dirname "$0")/peer_speed.sh" "$reference" "$peer" Q4_0
fi

# 5. The starter, from import to the first token.
"$valise" import "$starter" --name starter --json > /dev/null 2>&1
"$valise" fit starter --ram 160M --context 1024 -o fitted --json > "$home/starter.json" 2> /dev/null
row "fit of the starter, seconds, peak RSS" "$(get seconds < "$home/starter.json"), $(get peak_rss_bytes < "$home/starter.json")"
"$valise" bench fitted --threads "$threads" --json > "$home/bench.json" 2> /dev/null
row "start to first token, ms (load + first)" "$(get load_ms < "$home/bench.json") + $(get first_token_ms < "$home/bench.json")"
begin=$(date +%s%N)
"$valise" chat fitted --prompt Hello --max-tokens 1 > /dev/null 2>&1
row "  whole process, one token, ms" "$((($(date +%s%N) - begin) / 1000000))"
