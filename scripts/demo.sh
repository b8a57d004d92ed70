#!/usr/bin/env bash
# `make demo`: starts Flansible in a folder of its own on a free port, sends an ad-hoc ping and the sample playbook with
# curl, shows requests, statuses and outputs, and stops everything. Exit code 0 only when both tasks were SUCCESS.
# PYTHON names an interpreter that has flansible installed.
set -euo pipefail

python=${PYTHON:-python3}
samples=$(cd "$(dirname "$0")/.." && pwd)
ready_timeout_seconds=60
task_timeout_seconds=120
stop_timeout_seconds=15

# Nothing of the caller's settings, and no proxy on the way to this machine itself.
unset "${!FLANSIBLE_@}" "${!ANSIBLE_@}"
export no_proxy=127.0.0.1 NO_PROXY=127.0.0.1

demo=$(mktemp -d "${TMPDIR:-/tmp}/flansible-demo.XXXXXX")
service=

stop() {
  status=$?
  set +e
  trap '' INT TERM HUP PIPE
  trap - EXIT
  if [ -n "$service" ]; then
    say "Stopping the service"
    kill -TERM "$service" 2>/dev/null || true
    for ((i = 0; i < stop_timeout_seconds * 10; i++)); do
      kill -0 "$service" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$service" 2>/dev/null || true
    wait "$service" 2>/dev/null || true
  fi
  rm -rf "$demo"
  if [ "$status" = 0 ]; then
    say "Done: both tasks ended as SUCCESS, everything is stopped"
  else
    say "The demo did not come to its end (exit code $status); everything is stopped"
  fi
  exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
trap 'exit 141' PIPE

say() { printf '\n==> %s\n' "$*"; }

fail() {
  echo "$*" >&2
  echo "What the service wrote:" >&2
  cat service.log >&2
  exit 1
}

# Sends as `quietly` does, and shows the command first, on standard error: standard output is the reply.
send() { # send URL [BODY]
  if [ $# -gt 1 ]; then
    printf "\n\$ curl -sS --netrc-file netrc -H 'Content-Type: application/json' \\\\\n    -d '%s' \\\\\n    %s\n" "$2" "$1" >&2
  else
    printf '\n$ curl -sS --netrc-file netrc %s\n' "$1" >&2
  fi
  quietly "$@"
}

quietly() { # quietly URL [BODY]
  if [ -z "$has_curl" ]; then
    "$python" fallback.py "$@"
  elif [ $# -gt 1 ]; then
    curl -sS --netrc-file netrc -H 'Content-Type: application/json' -d "$2" "$1"
  else
    curl -sS --netrc-file netrc "$1"
  fi
}

field() { "$python" -c 'import json, sys; print(json.load(sys.stdin).get(sys.argv[1], ""))' "$1"; }

run() { # run TITLE PATH BODY
  local reply task status before='' give_up_at=$((SECONDS + task_timeout_seconds))
  say "$1"
  reply=$(send "$url/api/$2" "$3")
  echo "$reply"
  task=$(field task_id <<<"$reply")
  [ -n "$task" ] || fail "The request was not accepted."
  while :; do
    if [ -z "$before" ]; then
      reply=$(send "$url/api/ansibletaskstatus/$task")
    else
      reply=$(quietly "$url/api/ansibletaskstatus/$task")
    fi
    status=$(field Status <<<"$reply")
    [ "$status" = "$before" ] || echo "$reply"
    before=$status
    [ "$status" = PROGRESS ] || break
    [ "$SECONDS" -lt "$give_up_at" ] || fail "Still PROGRESS after $task_timeout_seconds seconds."
    sleep 0.2
  done
  send "$url/api/ansibletaskoutput/$task"
  [ "$status" = SUCCESS ] || fail "The task ended as $status."
}

cd "$demo"
# Ansible keeps its temp files in the home folder by default; here instead, so that nothing remains.
export HOME=$demo
printf '[defaults]\nremote_tmp = %s/remote-tmp\n' "$demo" >.ansible.cfg
has_curl=$(command -v curl || true)
if [ -z "$has_curl" ]; then
  say "curl is not installed (Debian: apt-get install curl): Python sends what the curl commands below would send"
  cat >fallback.py <<'PY'
import netrc, sys, urllib.error, urllib.request
from base64 import b64encode

url, *body = sys.argv[1:]
user, _, password = netrc.netrc("netrc").authenticators("127.0.0.1")
headers = {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}
if body:
    headers["Content-Type"] = "application/json"
request = urllib.request.Request(url, body[0].encode() if body else None, headers)
try:
    sys.stdout.write(urllib.request.urlopen(request, timeout=30).read().decode())
except urllib.error.HTTPError as error:
    sys.stdout.write(error.read().decode())
PY
fi

say "Starting Flansible in $demo"
cp -R "$samples/playbooks" "$samples/inventories" .
# A random password: anyone who can log in to the service can run commands as you.
password=$("$python" -c 'import secrets; print(secrets.token_urlsafe(24))')
"$python" -m flansible passwd admin <<<"$password"
(umask 077 && printf 'machine 127.0.0.1 login admin password %s\n' "$password" >netrc)
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
url=http://127.0.0.1:$port
echo "\$ FLANSIBLE_FLASK_TCP_PORT=$port flansible up"
FLANSIBLE_FLASK_TCP_PORT=$port "$python" -m flansible up >ready.txt 2>service.log &
service=$!
for ((i = 0; i < ready_timeout_seconds * 10; i++)); do
  if [ -s ready.txt ]; then break; fi
  kill -0 "$service" 2>/dev/null || fail "flansible up ended before it was ready."
  sleep 0.1
done
[ -s ready.txt ] || fail "Not ready after $ready_timeout_seconds seconds."
cat ready.txt

run "An ad-hoc command: ping" ansiblecommand \
  '{"host_pattern": "web", "module": "ping", "inventory": "../inventories/dev"}'
run "A playbook: playbooks/demo/site.yml" ansibleplaybook \
  '{"playbook_dir": "demo", "playbook": "site.yml", "inventory": "../../inventories/dev", "extra_vars": {"greeting_name": "Flansible", "greeting_dir": "'"$demo"'/greeting"}}'
