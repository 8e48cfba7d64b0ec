# Debian packages of one architecture and release on a machine of any, as any user: what the scripts debian-* here share.
#
# Sourced, with $me (the name in messages), $dir (where apt's own state goes, absolute) and $mirror (a URL, or empty) set; $arch, $release
# and $suites (names under which a mirror may have it) are riscv64 and trixie unless they are set as well. Then
# check_needs COMMAND:PACKAGE..., write_apt_config, update_lists, and apt-get -c "$dir/apt/apt.conf".

arch=${arch:-riscv64}
release=${release:-trixie}
suites=${suites:-trixie stable}

keyring=/usr/share/keyrings/debian-archive-keyring.gpg

fail() {
  echo "$me: $*" >&2
  exit 2
}

say() { echo "$me: $*" >&2; }

absolute() { (CDPATH='' cd -- "$1" && pwd); }

# check_needs COMMAND:PACKAGE...
check_needs() {
  missing=
  for need in "$@"; do
    command -v "${need%%:*}" >/dev/null || missing="$missing ${need##*:}"
  done
  [ -r "$keyring" ] || missing="$missing debian-archive-keyring"
  [ -z "$missing" ] || fail "not installed:$missing (sudo apt-get install$missing)"
}

# Our own apt: every path of its state in DIR, and none of the machine's hooks. The machine's proxy settings stay.
write_apt_config() {
  mkdir -p "$dir/apt/lists/partial" "$dir/apt/cache/archives/partial" "$dir/debs"
  : >"$dir/apt/status"
  cat >"$dir/apt/apt.conf" <<END
#clear APT::Architectures;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Architecture "$arch";
APT::Architectures { "$arch"; };
APT::Sandbox::User "$(id -un)";
Acquire::Retries "3";
Acquire::Languages "none";
Dir::State "$dir/apt";
Dir::State::Lists "$dir/apt/lists";
Dir::State::status "$dir/apt/status";
Dir::Cache "$dir/apt/cache";
Dir::Etc::SourceList "$dir/apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
END
}

# Addresses of the Debian archives in this machine's own apt configuration, one a line.
machine_mirrors() {
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    grep -E '/debian/?$' | sort -u || true
}

# update_from MIRROR SUITE
update_from() {
  echo "deb [arch=$arch signed-by=$keyring] $1 $2 main" >"$dir/apt/sources.list"
  say "reading the package list of $1 $2"
  apt-get -c "$dir/apt/apt.conf" -qq --error-on=any update 2>"$dir/apt/update.log" || return 1
  grep -qx "Codename: $release" "$dir"/apt/lists/*_InRelease ||
    { echo "'$2' is another release there" >"$dir/apt/update.log"; return 1; }
}

# A mirror or cache in the middle of a synchronisation may have a list under one of the suite's two names only.
update_lists() {
  candidates=${mirror:-$(machine_mirrors)}
  for candidate in $candidates; do
    for suite in $suites; do
      if update_from "$candidate" "$suite"; then return; fi
      say "no Debian $release for $arch there:"
      sed 's/^/  /' "$dir/apt/update.log" >&2
    done
  done
  if [ -n "$mirror" ]; then fail "--mirror $mirror must be a Debian mirror that has $release for $arch"; fi
  fail "this machine's apt knows no Debian mirror that has $release (Ubuntu's have none): give one with --mirror URL"
}
