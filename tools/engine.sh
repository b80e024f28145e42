# The Docker Engine of this machine, installed and started where that is needed and allowed, and the worker image in it.
# Sourced by ./dev.

readonly DOCKERD_PID=.cache/dockerd.pid DOCKERD_LOG=.cache/dockerd.log
readonly PACKAGES=(docker.io iptables mmdebstrap)
readonly ENGINE_WAIT_S=60

engine_answers() { "$VENV/bin/python" -c 'import docker; docker.from_env(timeout=10).ping()' 2>/dev/null; }

# runs PROGRAM PIDFILE: a dead process that nobody has reaped still has a name, but no program any more
runs() { [[ -s $2 && $(readlink "/proc/$(<"$2")/exe" 2>/dev/null) == */$1 ]]; }

dockerd_runs() { runs dockerd "$1"; }

# What a killed Engine leaves: its successor takes these files for a sign of life as long as the pid is not reaped.
drop_stale_pids() {
  local inner=/run/docker/containerd/containerd.pid
  dockerd_runs /run/docker.pid || rm -f /run/docker.pid
  runs containerd "$inner" || rm -f "$inner"
}

refuse_engine() {
  local socket=/var/run/docker.sock
  if [[ -n ${DOCKER_HOST:-} ]]; then
    fail "no Docker Engine answers at DOCKER_HOST=$DOCKER_HOST; start it, or unset DOCKER_HOST for the one of this machine"
  elif [[ -S $socket && ! -w $socket ]]; then
    fail "this user may not use $socket; as root: usermod -aG docker $(id -un); then log in again"
  elif ((EUID)) || ! { command -v dockerd >/dev/null || may_install; }; then
    fail "no Docker Engine answers, and only root with apt-get may install and start one. As root:" \
      "apt-get install ${PACKAGES[*]}" "systemctl start docker    (without systemd: dockerd &)" \
      "usermod -aG docker $(id -un)    (for another user than root; then log in again)"
  fi
}

start_dockerd() {
  drop_stale_pids
  if ! grep -q ' cgroup2\? ' /proc/mounts && command -v cgroupfs-mount >/dev/null; then
    cgroupfs-mount
  fi
  setsid dockerd >"$DOCKERD_LOG" 2>&1 </dev/null &
  printf '%d\n' $! >"$DOCKERD_PID"
  sleep 1 # until it is the program that its pid is looked at for
}

engine_failed() {
  [[ ! -e $DOCKERD_LOG ]] || tail -n 25 "$DOCKERD_LOG" >&2
  fail "the Docker Engine does not answer; the end of its log is above" "the whole log: $DOCKERD_LOG"
}

start_engine() {
  local deadline=$((SECONDS + ENGINE_WAIT_S)) started=0
  if [[ -d /run/systemd/system ]]; then
    systemctl start docker || fail "systemd could not start docker; see: journalctl -u docker"
    started=1
  fi
  until engine_answers; do
    # One that runs is on its way, or on its way out; one that we started and that is gone will not come back.
    if [[ ! -d /run/systemd/system ]] && ! dockerd_runs "$DOCKERD_PID" && ! dockerd_runs /run/docker.pid; then
      ((started == 0)) || engine_failed
      start_dockerd
      started=1
    fi
    ((SECONDS < deadline)) || engine_failed
    sleep 0.3
  done
}

# Whether the Engine in use is one that ./dev started.
owns_engine() { [[ -z ${DOCKER_HOST:-} ]] && dockerd_runs "$DOCKERD_PID"; }

engine() {
  local packages=("${PACKAGES[@]}")
  engine_answers && return
  refuse_engine
  if ! command -v dockerd >/dev/null; then
    [[ -d /run/systemd/system ]] || packages+=(cgroupfs-mount)
    step "Installing a Docker Engine: ${packages[*]}" apt_install "${packages[@]}"
  fi
  engine_answers || step "Starting the Docker Engine" start_engine
}

# For what needs no Docker Engine but a pool: an Engine, or where none can be had, runc. Sets POOL_ENGINE.
engine_or_runc() {
  if [[ ${POOL_ENGINE:-} != oci ]] && (engine); then
    export POOL_ENGINE=docker
    return
  fi
  # Whoever names an Engine in DOCKER_HOST wants that one.
  ((EUID == 0)) && [[ -z ${DOCKER_HOST:-} || ${POOL_ENGINE:-} == oci ]] || exit 1
  command -v runc >/dev/null || may_install || fail "no runc, which starts workers without a Docker Engine" \
    "as root: apt-get install runc"
  command -v runc >/dev/null || step "Installing runc" apt_install runc
  say "Without a Docker Engine: the daemon starts the workers with runc"
  export POOL_ENGINE=oci POOL_IMAGE_DIR=$PWD/.cache/images
  printf 'daemon:\n  image_dir: ${POOL_IMAGE_DIR}\n' >.cache/image.yaml
  image_options=(--engine oci --config .cache/image.yaml)
}

stop() {
  local pid
  if ! dockerd_runs "$DOCKERD_PID"; then
    say "No Docker Engine started by ./dev is running"
    return
  fi
  pid=$(<"$DOCKERD_PID")
  kill -TERM "$pid"
  while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done
  rm -f "$DOCKERD_PID"
  say "Stopped the Docker Engine"
}

# ---- image ----

image_options=()

# The base of the image is made from Debian's packages where no registry is reachable.
image() {
  if ! command -v mmdebstrap >/dev/null && ! command -v debootstrap >/dev/null && may_install; then
    (step "Installing mmdebstrap" apt_install mmdebstrap) || say "Going on without: a registry may be reachable"
  fi
  step "Worker image" "$VENV/bin/pool-admin" image build "${image_options[@]}"
}

# ---- a machine without an Engine ----

# The packages for an Engine and an image, where it is certain that they are needed.
missing_packages() {
  [[ ${POOL_ENGINE:-} != oci ]] || return 0
  may_install && [[ -z ${DOCKER_HOST:-} && ! -e /var/run/docker.sock ]] && ! command -v dockerd >/dev/null || return 0
  printf '%s\n' "${PACKAGES[@]}"
  [[ -d /run/systemd/system ]] || printf 'cgroupfs-mount\n'
  [[ -n $(find_python) ]] || printf 'python3-venv\n'
}

installing=''

# What is certainly missing, in one go. Where there is a Python already, .venv is made meanwhile.
begin_installing() {
  local packages
  mapfile -t packages < <(missing_packages)
  if [[ ${packages[*]} == *python3-venv* ]]; then
    step "Installing ${packages[*]}" apt_install "${packages[@]}"
  elif ((${#packages[@]} > 0)); then
    say "Installing meanwhile: ${packages[*]}"
    apt_install "${packages[@]}" &>/dev/null &
    installing=$!
  fi
}

# A failure is reported when it is tried again in the foreground.
finish_installing() { [[ -z $installing ]] || step "Waiting for the packages" wait "$installing" || true; }
