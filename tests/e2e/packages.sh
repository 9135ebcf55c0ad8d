#!/bin/sh
# packages.sh ROOT: the set-up goes on where the last of its packages is not installed, as on a machine that only builds.
set -eu
cd "$1"
there=$(mktemp -d)
trap 'rm -rf "$there"' EXIT INT TERM
cat > "$there/dpkg-query" <<'EOF'
#!/bin/sh
for last; do :; done
[ "$last" = gcc ] && printf installed
EOF
chmod +x "$there/dpkg-query"
PATH=$there:$PATH
. packaging/common.sh
found=$(packages_there)
[ "$found" = gcc ] || { echo "found '$found', and only gcc is there" >&2; exit 1; }
