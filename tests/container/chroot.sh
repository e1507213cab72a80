#!/usr/bin/env bash
# chroot.sh - run %files, %post and %test of containers/hamscope.def in a chroot that debootstrap makes: what Apptainer
# would do, without it.  As root; ten minutes.  `make test-container` calls it.
#
#   HAMSCOPE_CHROOT=FOLDER   where; kept afterwards (by default a temporary folder, removed)
#   HAMSCOPE_BIND="A B"      folders of this machine that are seen inside too, such as a mirror of packages
#
# The chroot takes this machine's sources of Debian and Python packages and its certificates.  Mounts are made in a mount
# namespace of this script's own, so none is left.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ "$(id -u)" != 0 ] || ! command -v debootstrap unshare >/dev/null; then
  echo "test-container: needs root and debootstrap (apt-get install debootstrap)" >&2; exit 2
fi
if [ -z "${HAMSCOPE_UNSHARED:-}" ]; then
  HAMSCOPE_UNSHARED=1 exec unshare --mount --propagation private "$0" "$@"
fi
definition=containers/hamscope.def
root=${HAMSCOPE_CHROOT:-$(mktemp -d /var/tmp/hamscope-chroot.XXXXXX)}
finish() {
  for mount in "${mounts[@]}"; do umount -l "$mount" 2>/dev/null || true; done
  if [ -z "${HAMSCOPE_CHROOT:-}" ]; then rm -rf --one-file-system "$root"; fi
}
mounts=()
trap finish EXIT
section() { python3 tests/container/definition.py "$definition" "$1"; }
say() { echo "test-container: $* ($SECONDS s)"; }

# In the file: "From: debian:bookworm-slim".
suite=$(sed -n 's/^From: debian:\([a-z]*\)-slim$/\1/p' "$definition")
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
if [ ! -e "$root/bin/sh" ]; then
  say "debootstrap of $suite"
  debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$root/bootstrap.log" 2>&1 || { tail "$root/bootstrap.log" >&2; exit 1; }
fi
mount -t proc proc "$root/proc"; mounts+=("$root/proc")
mount --rbind /dev "$root/dev"; mounts+=("$root/dev")
for path in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/xdg/pip ${HAMSCOPE_BIND:-}; do
  [ -e "$path" ] || continue
  mkdir -p "$root$(dirname "$path")"
  if [ -d "$path" ]; then mkdir -p "$root$path"; else touch "$root$path"; fi
  mount --bind -o ro "$path" "$root$path"; mounts+=("$root$path")
done
# Not in the place of its own certificates, which the package ca-certificates writes.
certificates=/etc/ssl/certs/ca-certificates.crt
if [ -e $certificates ]; then cp $certificates "$root/run/certificates.crt"; fi
inside() {  # inside "script": a POSIX shell in the chroot with a clean environment, as Apptainer has it
  local name settings=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C)
  for name in $(compgen -e | grep -E '^PIP_|_proxy$|_PROXY$' || true); do settings+=("$name=${!name}"); done
  settings+=(PIP_CERT=/run/certificates.crt SSL_CERT_FILE=/run/certificates.crt)
  chroot "$root" /usr/bin/env -i "${settings[@]}" /bin/sh -c "$1"
}

say "%files"
while read -r from to; do
  mkdir -p "$root$(dirname "$to")"
  cp -r --no-preserve=ownership "$from" "$root$to"
done < <(section files | sed '/^ *$/d')
say "%post"
inside "$(section post)"
left=$(find "$root/root/.cache" "$root"/opt/hamscope-source "$root"/var/lib/apt/lists -mindepth 1 2>/dev/null | head -n 3 || true)
if [ -n "$left" ]; then echo "test-container: caches were left: $left" >&2; exit 1; fi
say "%test; $(du -sxh "$root" | cut -f1) in all"
inside "$(section environment)
$(section test)"
say "%runscript"
inside "$(section environment)
set -- --version
$(section runscript)"
say "passed"
