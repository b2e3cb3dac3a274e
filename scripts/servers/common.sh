# What the server scripts share; each sources it. A server is installed once under $servers, which survives clones, and
# runs from a data directory of its own: `pid` and `log` lie beside its data.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -n "${SHARDWRIGHT_SERVERS:-}" ]; then
  servers=$SHARDWRIGHT_SERVERS
elif [ "$(id -u)" = 0 ]; then
  servers=/var/cache/shardwright/servers
else
  servers=$HOME/.cache/shardwright/servers
fi

die() { echo "$(basename "$0"): $*" >&2; exit 1; }

usage() {
  cat >&2 <<TEXT
$(basename "$0") install                                    fetch it, once
$(basename "$0") start --port P --data DIR [--while PID]    start it, wait until it is ready, print its pid;
                                                  with --while it is stopped when that process is gone
$(basename "$0") stop --data DIR                            stop it, wait until it is gone
TEXT
  exit 2
}

# Sets: action port data watched
parse() {
  action=${1:-} port='' data='' watched=''
  [ $# -gt 0 ] && shift
  while [ $# -gt 0 ]; do
    case $1 in
      --port) port=${2:-} ;;
      --data) data=${2:-} ;;
      --while) watched=${2:-} ;;
      *) usage ;;
    esac
    shift 2 || usage
  done
  case $action in
    install) ;;
    start) [ -n "$port" ] && [ -n "$data" ] || usage; mkdir -p "$data"; data=$(cd "$data" && pwd) ;;
    stop) [ -n "$data" ] || usage ;;
    *) usage ;;
  esac
}

# Runs `fetch DIR` into a new directory and puts it in place as $servers/$1 if it worked. One at a time on this machine.
install_once() { # name
  local target=$servers/$1
  [ -e "$target/.complete" ] && return
  mkdir -p "$servers"
  (
    flock 9
    [ -e "$target/.complete" ] && exit 0
    fresh=$(mktemp -d "$servers/.fetch.XXXXXX")
    chmod 755 "$fresh"
    if ! fetch "$fresh" >"$fresh.log" 2>&1 </dev/null; then
      tail -n 30 "$fresh.log" >&2
      rm -rf "$fresh"
      die "cannot be fetched, the whole log is $fresh.log"
    fi
    touch "$fresh/.complete"
    rm -rf "$target" "$fresh.log"
    mv "$fresh" "$target"
  ) 9>"$servers/.lock"
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A port below the range that systems hand out to clients, so that nobody takes it between the look and the start.
free_port() {
  local candidate
  for _ in $(seq 100); do
    candidate=$((20000 + RANDOM % 12000))
    listens "$candidate" || { echo "$candidate"; return; }
  done
  die "no free port found"
}

running() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }

# Starts a command from $data in the background, with its output in $data/log, and waits until $port listens, the process
# is gone, or the seconds are over. Prints the pid.
launch() { # seconds command...
  local seconds=$1 pid
  shift
  ! listens "$port" || die "port $port is in use"
  cd "$data"
  setsid "$@" >>"$data/log" 2>&1 </dev/null 9>&- &
  pid=$!
  echo "$pid" >"$data/pid"
  for _ in $(seq $((seconds * 10))); do
    if listens "$port"; then
      [ -z "$watched" ] || watch_over "$pid"
      echo "$pid"
      return
    fi
    running "$pid" || { tail -n 20 "$data/log" >&2; die "ended at its start, see $data/log"; }
    sleep 0.1
  done
  kill -9 "$pid" 2>/dev/null || true
  tail -n 20 "$data/log" >&2
  die "not ready after $seconds s, see $data/log"
}

# So that a test run that is killed leaves no server behind.
watch_over() { # pid
  setsid bash -c 'while kill -0 "$1" 2>/dev/null && kill -0 "$2" 2>/dev/null; do sleep 1; done; kill -9 "$2" 2>/dev/null' \
    watch "$watched" "$1" >/dev/null 2>&1 </dev/null &
}

stop() {
  local pid=''
  [ -e "$data/pid" ] && pid=$(cat "$data/pid")
  running "$pid" || { rm -f "$data/pid"; return 0; }
  kill "$pid" 2>/dev/null || true
  for _ in $(seq 200); do
    running "$pid" || { rm -f "$data/pid"; return 0; }
    sleep 0.1
  done
  kill -9 "$pid" 2>/dev/null || true
  rm -f "$data/pid"
}
