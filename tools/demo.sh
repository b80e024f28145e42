# The demo: the main job in a daemon of its own, of which nothing stays. Sourced by ./dev.

readonly DAEMON_WAIT_S=90 DAEMON_STOP_S=60

demo_dir='' demo_daemon=''

# Runs however the demo ends: nothing of it stays.
demo_ends() {
  local deadline=$((SECONDS + DAEMON_STOP_S))
  if [[ -n $demo_daemon ]] && kill -TERM "$demo_daemon" 2>/dev/null; then
    say "Stopping the daemon"
    while kill -0 "$demo_daemon" 2>/dev/null && ((SECONDS < deadline)); do sleep 0.1; done
    kill -KILL "$demo_daemon" 2>/dev/null && say "it did not end within $DAEMON_STOP_S s and was killed"
  fi
  [[ -z $demo_dir ]] || rm -rf "$demo_dir"
}

start_daemon() {
  local log=.cache/daemon.log deadline=$((SECONDS + DAEMON_WAIT_S))
  setsid "$VENV/bin/pool-daemon" --config examples/demo.yaml >"$log" 2>&1 </dev/null &
  demo_daemon=$!
  until "$VENV/bin/pool-admin" status >".cache/status.log" 2>&1; do
    if ! kill -0 "$demo_daemon" 2>/dev/null || ((SECONDS >= deadline)); then
      tail -n 25 ".cache/status.log" "$log" >&2
      fail "the daemon did not become ready; the end of its log is above" "the whole log: $log"
    fi
    sleep 0.2
  done
}

demo() {
  setup_with engine_or_runc demo
  trap demo_ends EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  demo_dir=$(mktemp -d /tmp/pool.XXXXXX) # short: a socket path has at most 107 bytes
  export POOL_RUN_DIR=$demo_dir/run POOL_STATE_DIR=$demo_dir/state POOL_DEMO_PRICES=$PWD/.cache/prices.npy
  unset POOL_ENDPOINT POOL_ADMIN_ENDPOINT POOL_CONFIG
  step "Daily prices" "$VENV/bin/python" examples/prices.py --output "$POOL_DEMO_PRICES"
  step "Starting the daemon and its workers" start_daemon
  step "The main job: examples/autonomous_loop.py $*" "$VENV/bin/python" examples/autonomous_loop.py "$@"
}
