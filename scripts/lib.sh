# Shared by the scripts: puts the pinned Bun and the packages of bun.lock below the repository.
# Needs git, a shell, and Node with npm, or any Bun. Sourced with the repository as working directory.
# shellcheck shell=bash

say() { printf '%s\n' "$*" >&2; }

# Caches default to places below HOME. Where HOME is no use, they go below the repository instead.
use_writable_caches() {
  if [ -n "${HOME:-}" ] && [ -d "$HOME" ] && [ -w "$HOME" ]; then return; fi
  local cache="$PWD/.cache"
  mkdir -p "$cache/home"
  # A HOME that can be read may hold registry settings: it stays, and only the caches move.
  if [ -z "${HOME:-}" ] || [ ! -d "$HOME" ]; then export HOME="$cache/home"; fi
  export npm_config_cache="${npm_config_cache:-$cache/npm}"
  export BUN_INSTALL_CACHE_DIR="${BUN_INSTALL_CACHE_DIR:-$cache/bun-packages}"
  export GOPATH="${GOPATH:-$cache/go}"
  export GOCACHE="${GOCACHE:-$cache/go-build}"
}

# The version that package.json pins: of "bun": "1.2.3", not of engines' "bun": ">=1.2.3".
pinned_bun() { sed -n 's/.*"bun": *"\([0-9][^"]*\)".*/\1/p' package.json | head -n 1; }

# True if $1 is a Bun of the pinned version. The placeholder that npm leaves before the install script ran is not.
is_pinned_bun() { [ "$("$1" --version 2>/dev/null </dev/null)" = "$(pinned_bun)" ]; }

# Runs the install script of the package `bun` in $1 (it puts the real program in place), for package managers that
# do not run install scripts. $2 runs it: node, or another Bun.
finish_bun() { (cd "$1" && "$2" install.js </dev/null >&2); }

# Prints the path of a Bun that can install packages: the pinned one from wherever it is, or else any.
bootstrap_bun() {
  local fetched="$PWD/.cache/bun/node_modules/bun" candidate
  for candidate in "$PWD/node_modules/.bin/bun" "$(command -v bun)" "$fetched/bin/bun.exe"; do
    if [ -n "$candidate" ] && is_pinned_bun "$candidate"; then echo "$candidate"; return; fi
  done
  if command -v npm >/dev/null; then
    say "Fetching Bun $(pinned_bun) with npm ..."
    mkdir -p .cache/bun
    npm install --no-save --no-audit --no-fund --no-update-notifier --loglevel=error --prefix .cache/bun "bun@$(pinned_bun)" \
      </dev/null >&2 || return 1
    is_pinned_bun "$fetched/bin/bun.exe" || finish_bun "$fetched" node || return 1
    echo "$fetched/bin/bun.exe"
  elif command -v bun; then
    # Another version can still install the packages, and the pinned Bun is one of them.
    return
  else
    say "Neither bun nor npm is on the PATH. Install Node.js (https://nodejs.org) or Bun (https://bun.sh), and run this again."
    return 1
  fi
}

# Afterwards `bun` is the pinned one, and the packages are those of bun.lock.
install_packages() {
  use_writable_caches
  local bun
  bun=$(bootstrap_bun) || return 1
  "$bun" install --frozen-lockfile --silent </dev/null >&2 || return 1
  is_pinned_bun node_modules/.bin/bun || finish_bun node_modules/bun "$bun" || return 1
  if ! is_pinned_bun node_modules/.bin/bun; then
    say "node_modules/.bin/bun is not Bun $(pinned_bun). Remove node_modules and run this again."
    return 1
  fi
  export PATH="$PWD/node_modules/.bin:$PATH"
}
