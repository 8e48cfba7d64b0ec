# Debian packages for riscv64 on a machine of any architecture, as any user: what scripts/debian-guest and scripts/debian-disk share.
#
# Sourced, with $me (the name in messages), $dir (where apt's own state goes, absolute) and $mirror (a URL, or empty) set. Then
# check_needs COMMAND:PACKAGE..., write_apt_config, update_lists, and apt-get -c "$dir/apt/apt.conf".

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
APT::Architecture "riscv64";
APT::Architectures { "riscv64"; };
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
  echo "deb [arch=riscv64 signed-by=$keyring] $1 $2 main" >"$dir/apt/sources.list"
  say "reading the package list of $1 $2"
  apt-get -c "$dir/apt/apt.conf" -qq --error-on=any update 2>"$dir/apt/update.log" || return 1
  grep -qx 'Codename: trixie' "$dir"/apt/lists/*_InRelease ||
    { echo "'$2' is another release there" >"$dir/apt/update.log"; return 1; }
}

# A mirror or cache in the middle of a synchronisation may have a list under one of the suite's two names only.
update_lists() {
  candidates=${mirror:-$(machine_mirrors)}
  for candidate in $candidates; do
    for suite in trixie stable; do
      if update_from "$candidate" "$suite"; then return; fi
      say "no Debian trixie for riscv64 there:"
      sed 's/^/  /' "$dir/apt/update.log" >&2
    done
  done
  if [ -n "$mirror" ]; then fail "--mirror $mirror must be a Debian mirror that has trixie for riscv64"; fi
  fail "this machine's apt knows no Debian mirror that has trixie (Ubuntu's have none): give one with --mirror URL"
}
