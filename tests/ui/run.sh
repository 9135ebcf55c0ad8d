#!/bin/sh
# run.sh: a test of the window on a display and a session bus of its own; skipped, with the reason, where there can be none.
#   sh run.sh PROGRAM [ARGUMENT...]
for tool in Xvfb dbus-run-session; do
  command -v "$tool" > /dev/null 2>&1 || { echo "1..0 # SKIP $tool is not installed"; exit 0; }
done
work=$(mktemp -d) || exit 1
trap 'kill "$server" 2> /dev/null; wait "$server" 2> /dev/null; rm -rf "$work"' EXIT
mkfifo "$work/display"
# The server picks a free display itself and says which.
Xvfb -displayfd 3 -screen 0 1400x1200x24 -nolisten tcp > "$work/log" 2>&1 3> "$work/display" &
server=$!
read -r display < "$work/display" || { cat "$work/log" >&2; echo "Bail out! Xvfb did not start"; exit 1; }
export DISPLAY=":$display" XDG_RUNTIME_DIR="$work" HOME="$work" XDG_CONFIG_HOME="$work/config" XDG_CACHE_HOME="$work/cache"
export GDK_BACKEND=x11 GSK_RENDERER=cairo GTK_A11Y=test GSETTINGS_BACKEND=memory GTK_USE_PORTAL=0 GIO_USE_VFS=local
unset WAYLAND_DISPLAY
dbus-run-session -- "$@"
