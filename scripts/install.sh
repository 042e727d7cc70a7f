#!/bin/sh
# Installs walsync: sh install.sh [FOLDER], by default ~/.local/bin. Nothing is installed unless it is what SHA256SUMS says and
# runs on this machine; a walsync that is already there stays until then.
#   WALSYNC_VERSION   a release by its tag, for example v0.1.0; by default the newest
#   WALSYNC_BASE_URL  another place that holds the archives and SHA256SUMS
#   WALSYNC_TARGET    another build than the one for this machine, for example linux-x64-musl
set -eu

# The address of the project's releases; a release fills it in for the copy that is attached to it.
RELEASES_URL=

say() { printf '%s\n' "$*" >&2; }
fail() { say "install.sh: $*"; exit 1; }

# Prints the name of the build for this machine: system, processor, and "musl" where libc is that.
find_target() {
  system=$(uname -s)
  processor=$(uname -m)
  case $processor in
    x86_64 | amd64) processor=x64 ;;
    aarch64 | arm64) processor=arm64 ;;
    *) fail "expected an x86-64 or ARM64 processor, found $processor" ;;
  esac
  case $system in
    Linux)
      if getconf GNU_LIBC_VERSION >/dev/null 2>&1; then echo "linux-$processor"
      elif ls /lib/ld-musl-* >/dev/null 2>&1; then echo "linux-$processor-musl"
      else echo "linux-$processor"; fi ;;
    Darwin)
      # A shell that Rosetta translates says x86_64 on Apple silicon.
      if [ "$(sysctl -n sysctl.proc_translated 2>/dev/null)" = 1 ]; then processor=arm64; fi
      echo "darwin-$processor" ;;
    *) fail "expected Linux or macOS, found $system; on Windows use WSL" ;;
  esac
}

find_base_url() {
  if [ -n "${WALSYNC_BASE_URL:-}" ]; then echo "${WALSYNC_BASE_URL%/}"
  elif [ -z "$RELEASES_URL" ]; then fail "this copy belongs to no release: set WALSYNC_BASE_URL, or take the install.sh of a release"
  elif [ -n "${WALSYNC_VERSION:-}" ]; then echo "$RELEASES_URL/download/$WALSYNC_VERSION"
  else echo "$RELEASES_URL/latest/download"; fi
}

download() { # download URL FILE
  if command -v curl >/dev/null 2>&1; then curl --fail --silent --show-error --location --retry 2 --output "$2" "$1"
  elif command -v wget >/dev/null 2>&1; then wget -q -O "$2" "$1"
  else fail "expected curl or wget, found neither"; fi || fail "$1 could not be downloaded"
}

sha256() { # sha256 FILE
  if command -v sha256sum >/dev/null 2>&1; then sha256sum <"$1"
  elif command -v shasum >/dev/null 2>&1; then shasum -a 256 <"$1"
  elif command -v openssl >/dev/null 2>&1; then openssl dgst -sha256 -r <"$1"
  else fail "expected sha256sum, shasum or openssl, found none"; fi | cut -d ' ' -f 1
}

clean_up() { if [ -n "${work:-}" ]; then rm -rf "$work"; fi; }

main() {
  case ${1:-} in
    -*) fail "usage: install.sh [FOLDER]" ;;
    '') folder=${HOME:?install.sh: HOME is not set, so name a folder}/.local/bin ;;
    *) folder=$1 ;;
  esac
  if [ -n "${WALSYNC_TARGET:-}" ]; then target=$WALSYNC_TARGET; else target=$(find_target); fi
  base_url=$(find_base_url)
  archive=walsync-$target.tar.gz

  mkdir -p "$folder"
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  # In the same folder, so that the last step is a rename: there is the old program or the new one, never a part of it.
  work=$(mktemp -d "$folder/.walsync-install.XXXXXX")
  say "Downloading $archive from $base_url ..."
  download "$base_url/SHA256SUMS" "$work/SHA256SUMS"
  download "$base_url/$archive" "$work/$archive"

  expected=$(awk -v name="$archive" '$2 == name { print $1 }' "$work/SHA256SUMS")
  [ -n "$expected" ] || fail "SHA256SUMS has no $archive"
  found=$(sha256 "$work/$archive")
  [ "$found" = "$expected" ] || fail "$archive: expected the SHA-256 $expected, found $found; nothing was installed"

  tar -xzf "$work/$archive" -C "$work" || fail "$archive could not be unpacked"
  program=$work/walsync-$target/walsync
  if ! version=$("$program" --version 2>"$work/complaint"); then
    cat "$work/complaint" >&2
    case $target in *-musl) say "On Alpine: apk add libstdc++" ;; esac
    fail "walsync does not run on this machine; nothing was installed"
  fi
  chmod 755 "$program"
  mv -f "$program" "$folder/walsync"
  say "Installed $(printf '%s\n' "$version" | head -n 1) as $folder/walsync"
  case :$PATH: in *":$folder:"*) ;; *) say "$folder is not on the PATH: add it, or start $folder/walsync" ;; esac
}

# The last line: a download of this script that was cut off does nothing.
main "$@"
