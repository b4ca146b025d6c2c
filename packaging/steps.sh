# The steps of packaging/build. Sourced, with the clone as working folder and `set -euo pipefail`.

# The tools are pinned: another version may write other bytes. They live in a folder of their own, so that nobody's own are replaced.
CARGO_DEB=3.8.0
CARGO_GENERATE_RPM=0.21.1
TOOLS="${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/tidegate/packaging-tools"
export PATH="$TOOLS/bin:$PATH"

say() { printf 'packaging/build: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

install_what_is_missing() {
  local missing=()
  command -v cc >/dev/null || missing+=(gcc)
  [ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
  command -v objcopy >/dev/null || missing+=(binutils)
  command -v python3 >/dev/null || missing+=(python3)
  command -v dpkg-shlibdeps >/dev/null || missing+=(dpkg-dev)
  command -v git >/dev/null || missing+=(git)
  if [ "${#missing[@]}" -gt 0 ]; then
    [ "$(id -u)" = 0 ] || fail "missing: ${missing[*]}. Install them (apt-get install ${missing[*]}), or run this once as root"
    say "installing ${missing[*]}"
    apt-get update -q >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >&2
  fi
  install_tool cargo-deb "$CARGO_DEB"
  install_tool cargo-generate-rpm "$CARGO_GENERATE_RPM"
}

install_tool() { # name, version
  if [ "$("$TOOLS/bin/$1" --version 2>/dev/null | grep -o '[0-9][0-9.]*' | head -n 1)" = "$2" ]; then return; fi
  say "installing $1 $2"
  CARGO_TARGET_DIR="$(target_folder)/packaging-tools" cargo install --locked --quiet --force --root "$TOOLS" --version "$2" "$1" >&2
}

target_folder() { realpath -m -- "${CARGO_TARGET_DIR:-target}"; }

version_of_manifest() { sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1; }

commit_time() {
  git log -1 --format=%ct 2>/dev/null || fail "this is no git clone: set SOURCE_DATE_EPOCH to the time the packages shall bear"
}

check_version() {
  [[ "$1" =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$ ]] || fail "$1 is no version: write 1.2.3, or 1.2.3-rc.1"
}

# 1.0.0-rc.1 comes before 1.0.0: both package systems say so with a tilde.
package_version() { printf '%s\n' "$1" | tr - '~'; }

build_release() { # version, target folder
  say "building tidegate $1"
  cargo fetch --locked --quiet >&2
  local home="${CARGO_HOME:-${HOME:-/root}/.cargo}" sysroot
  sysroot="$(rustc --print sysroot)"
  # The last map that fits counts: the target folder may be in the clone, and a registry's folder is named for the mirror it came from.
  local maps=("$home=/cargo" "$sysroot=/rust" "$PWD=/tidegate" "$2=/target") rust='' c='' map folder
  for folder in "$home"/registry/src/*/; do maps+=("${folder%/}=/crates"); done
  for map in "${maps[@]}"; do
    rust+="--remap-path-prefix=$map"$'\x1f'
    c+=" -ffile-prefix-map=$map"
  done
  CARGO_ENCODED_RUSTFLAGS="${rust}-Clink-arg=-Wl,--build-id=sha1" CFLAGS="${CFLAGS:-}$c" CXXFLAGS="${CXXFLAGS:-}$c" \
    TIDEGATE_VERSION="$1" CARGO_INCREMENTAL=0 CARGO_TARGET_DIR="$2" cargo build --release --locked --bin tidegate >&2
}

warn_if_other_version() { # binary, version
  local says
  says="$("$1" --version)" || fail "$1 does not run here"
  [ "$says" = "tidegate $2" ] || say "note: $1 says \"$says\", its packages will say $2"
}

# The binary without its debug symbols, and these in a file that debuggers find by the build id.
stage_binary() { # binary, stage
  local id symbols
  id="$(readelf -n "$1" | sed -n 's/^ *Build ID: *//p')"
  [ -n "$id" ] || fail "$1 has no build id: link it with -Wl,--build-id=sha1"
  symbols="$2/release/debug/${id:0:2}/${id:2}.debug"
  mkdir -p -- "$(dirname "$symbols")"
  objcopy --only-keep-debug --compress-debug-sections=zlib "$1" "$symbols"
  objcopy --strip-unneeded --remove-section=.comment --add-gnu-debuglink="$symbols" "$1" "$2/release/tidegate"
}

# Everything else that the packages hold, laid out as it will be installed; Cargo.toml says which package takes which part. What the
# binary can say itself, it says.
stage_files() { # binary, version, stage
  local binary="$1" version="$2" package="$3/release/package"
  local both="$package/both/usr" documents="$package/documents/usr/share" deb="$package/deb/usr/share" rpm="$package/rpm/usr/share"
  "$binary" params default | into "$package/startup.ini"
  cp -- packaging/first-policy.toml "$package/"
  copy "$both/lib/systemd/system" systemd/*.service systemd/*.socket
  into "$both/lib/sysusers.d/tidegate.conf" < packaging/sysusers.conf
  into "$both/lib/tmpfiles.d/tidegate.conf" < packaging/tmpfiles.conf
  if compgen -G 'systemd/*.conf' >/dev/null; then copy "$both/share/tidegate" systemd/*.conf; fi
  "$binary" completions bash | into "$both/share/bash-completion/completions/tidegate"
  "$binary" completions fish | into "$both/share/fish/vendor_completions.d/tidegate.fish"
  "$binary" completions zsh | into "$deb/zsh/vendor-completions/_tidegate"
  "$binary" completions zsh | into "$rpm/zsh/site-functions/_tidegate"
  stage_manual "$binary" "$documents/man"
  stage_documents "$documents/doc/tidegate"
  stage_debian "$version" "$package" "$deb"
  # The rpm's script has to know the version that comes; dpkg tells its scripts.
  sed "s/@VERSION@/$(package_version "$version")/g" packaging/rpm/pre.sh | into "$package/rpm-pre.sh"
  package_version "$version" | into "$rpm/tidegate/version"
  copy "$rpm/licenses/tidegate" LICENSE
}

# What Debian alone asks for: changelogs under names of its own, and the exceptions to lintian's rules.
stage_debian() { # version, folder of both packages, what /usr/share gets of the first
  local debug="$2/debug-deb/usr/share"
  gzip -9n < CHANGELOG.md | into "$3/doc/tidegate/changelog.gz"
  debian_changelog "$1" tidegate | gzip -9n | into "$3/doc/tidegate/changelog.Debian.gz"
  debian_changelog "$1" tidegate-dbgsym | gzip -9n | into "$debug/doc/tidegate-dbgsym/changelog.Debian.gz"
  into "$3/lintian/overrides/tidegate" < packaging/lintian-overrides
  into "$debug/lintian/overrides/tidegate-dbgsym" < packaging/lintian-overrides-dbgsym
}

stage_manual() { # binary, folder
  mkdir -p -- "$2/man1" "$2/man5"
  "$1" man -o "$2/man1" >/dev/null
  mv -- "$2"/man1/*.5 "$2/man5/"
  gzip -9n -- "$2"/man?/*
}

stage_documents() { # folder
  copy "$1" README.md ARCHITECTURE.md
  copy "$1/docs" docs/*.md
  copy "$1/docs/images" docs/images/*
  copy "$1/docs/formats" docs/formats/*.md
  copy "$1/docs/decisions" docs/decisions/*.md
  copy "$1/examples" docs/examples/*.*
  copy "$1/examples/lists" docs/examples/lists/*
  python3 packaging/licences.py | into "$1/third-party-licences.txt"
  gzip -9n -- "$1/third-party-licences.txt"
}

into() { mkdir -p -- "$(dirname "$1")" && cat > "$1"; }

copy() { # folder, files
  local folder="$1"
  shift
  mkdir -p -- "$folder" && cp -- "$@" "$folder/"
}

debian_changelog() { # version, package
  cat <<END
$2 ($(package_version "$1")-1) unstable; urgency=medium

  * What changed, and what to do about it: /usr/share/doc/tidegate/changelog.gz

 -- $(sed -n 's/^maintainer = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END
}

# Both tools read the lists of assets in Cargo.toml, where target/release/ means the stage.
make_packages() { # stage, version, out, --fast or nothing
  local version made="$1/made" file
  version="$(package_version "$2")"
  local deb=(cargo deb --quiet --no-build --no-strip --locked --offline --deb-version "$version-1" --output "$made/")
  local rpm=(cargo generate-rpm --target-dir "$1" --output "$made/" -s "version = \"$version\"")
  if [ -n "$4" ]; then deb+=(--fast) rpm+=(--payload-compress gzip); fi
  mkdir -p -- "$made"
  CARGO_TARGET_DIR="$1" "${deb[@]}" >/dev/null
  CARGO_TARGET_DIR="$1" "${deb[@]}" --variant dbgsym >/dev/null
  "${rpm[@]}" --variant node --auto-req builtin
  "${rpm[@]}" --variant debuginfo --auto-req disabled
  for file in "$made"/*; do
    mv -f -- "$file" "$3/"
    printf '%s\n' "$3/$(basename "$file")"
  done
}
