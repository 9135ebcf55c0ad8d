#!/bin/sh
# check.sh: runs a validator; where it is not installed the test is skipped (meson reads exit 77) and says so.
#   sh check.sh TOOL [ARGUMENT...]
command -v "$1" > /dev/null 2>&1 || { echo "SKIP: $1 is not installed"; exit 77; }
exec "$@"
