#!/bin/bash
# install-debian.sh PACKAGE...: installs Debian's packages. Who asks for them needs the programs alone, so none of their services may
# start, now or at the next boot. Idempotent; needs root.
set -euo pipefail

# One installation at a time: none may remove the policy below while another still needs it.
exec 9>/run/lock/oncebox-install.lock
flock 9

missing=()
for package in "$@"; do
  [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true) == installed ]] || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

# Exit code 101 tells a package's scripts that they may not start services. A policy that says so already is left alone.
policy=/usr/sbin/policy-rc.d
verdict=0
"$policy" any start >/dev/null 2>&1 || verdict=$?
if [[ $verdict -ne 101 ]]; then
  [[ ! -e $policy ]] || mv "$policy" "$policy.before-oncebox"
  restore() { rm -f "$policy"; [[ ! -e $policy.before-oncebox ]] || mv "$policy.before-oncebox" "$policy"; }
  trap restore EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -q -o DPkg::Lock::Timeout=300)
"${apt[@]}" update
"${apt[@]}" install -y --no-install-recommends "${missing[@]}"
if command -v systemctl >/dev/null; then
  for package in "${missing[@]}"; do
    case $package in
      rabbitmq-server) systemctl --quiet disable rabbitmq-server.service epmd.socket epmd.service || true ;;
      prometheus) systemctl --quiet disable prometheus.service || true ;;
    esac
  done
fi
