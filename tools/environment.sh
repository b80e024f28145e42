# .venv: exactly what the lock files name, and the checkout itself. Sourced by ./dev.
#
#   locks/uv.txt ──pip──▶ .cache/uv ──uv──▶ .venv with locks/3.11/demo.txt, test.txt, ... ──▶ the checkout, editable
#
# Each command names the lock files it needs. .venv has those of all commands that were run so far.

readonly VENV=.venv STAMP=.venv/.installed UV=.cache/uv/bin/uv

# Tests may take place in another environment than .venv.
tested=$VENV

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# The Python to make environments with: one that there are lock files for, and that can install uv.
find_python() {
  local name version
  for name in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
    version=$(python_version "$name") || continue
    [[ -d locks/$version ]] || continue
    "$name" -c 'import pip' 2>/dev/null || "$name" -c 'import ensurepip, venv' 2>/dev/null || continue
    printf '%s\n' "$name"
    return
  done
}

# require_python: sets `python`
require_python() {
  local versions
  python=$(find_python)
  [[ -z $python ]] || return 0
  versions=$(cd locks && printf '%s ' 3.*)
  may_install || fail "Python ${versions// /, }with pip or venv is needed; as root: apt-get install python3 python3-venv"
  step "Installing python3-venv" apt_install python3 python3-venv
  python=$(find_python)
  [[ -n $python ]] || fail "one of these versions of Python is needed, and this system's packages have none: $versions"
}

# ---- uv ----

# uv in a directory of its own, by the system's pip or by the one that comes with Python; else the one on the PATH.
install_uv() {
  local python=$1 own into=() options=(--require-hashes --only-binary :all: --no-deps --progress-bar off)
  rm -rf .cache/uv
  if "$python" -c 'import pip' 2>/dev/null; then
    into=(--target .cache/uv)
  else
    "$python" -m venv .cache/uv
    python=.cache/uv/bin/python
  fi
  if ! (logged uv "$python" -m pip install --disable-pip-version-check "${options[@]}" "${into[@]}" -r locks/uv.txt); then
    own=$(type -P uv) || fail "uv, which installs everything else, cannot be installed; the lines above say why" \
      "pip takes it from the index that it is configured with; PIP_INDEX_URL=URL ./dev ... names another one" \
      "or install uv in your own way, so that it is on the PATH: ./dev uses it then"
    say "Going on with $own"
    mkdir -p .cache/uv/bin
    ln -sf "$own" "$UV"
  fi
  cp locks/uv.txt .cache/uv/installed.txt
}

# uv reads no pip.conf. An index that pip is set up with, and the certificates of the system, are meant for uv as well.
follow_pip() {
  local index
  index=${PIP_INDEX_URL:-$("$1" -m pip config get global.index-url 2>/dev/null)} || true
  [[ -z $index ]] || export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$index}
  [[ ! -e /etc/ssl/certs/ca-certificates.crt ]] || export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-1}
  export UV_PYTHON_DOWNLOADS=never
}

# require_uv: sets `python`
require_uv() {
  require_python
  [[ -x $UV ]] && cmp -s locks/uv.txt .cache/uv/installed.txt || step "Installing uv" install_uv "$python"
  follow_pip "$python"
}

# ---- environments ----

# install_into DIRECTORY LOCKFILE...: what they name and nothing else, then the checkout
install_into() {
  local target=(--python "$1/bin/python")
  logged install "$UV" pip sync "${target[@]}" --require-hashes --no-build "${@:2}"
  logged install-checkout "$UV" pip install "${target[@]}" --no-deps --no-build-isolation -e .
}

# lock_file NAME: of this .venv's Python, or of all
lock_file() {
  local versions=("$VENV"/lib/python3.*)
  local own=locks/${versions[0]##*/python}/$1.txt
  [[ -e $own ]] || own=locks/$1.txt
  printf '%s\n' "$own"
}

lock_files() {
  local name file
  for name in "$@"; do
    file=$(lock_file "$name")
    [[ ! -e $file ]] || printf '%s\n' "$file"
  done
}

# What an environment with these lock files is made from. It cannot be moved to another directory.
stamp() {
  local files
  mapfile -t files < <(lock_files "$@")
  printf '%s\n%s\n' "$*" "$PWD"
  cat pyproject.toml "${files[@]}" | sha256sum
}

venv_works() {
  [[ -x $VENV/bin/python ]] && "$VENV/bin/python" -c '' 2>/dev/null && [[ $(sed -n 2p "$STAMP" 2>/dev/null) == "$PWD" ]] &&
    [[ -z ${PYTHON:-} || $(python_version "$PYTHON") == "$(python_version "$VENV/bin/python")" ]]
}

make_environment() {
  local python='' files
  require_uv
  venv_works || logged venv "$UV" venv --clear --python "$python" "$VENV"
  mapfile -t files < <(lock_files "$@")
  install_into "$VENV" "${files[@]}"
  stamp "$@" >"$STAMP"
}

# environment NAME...: .venv has what these lock files name
environment() {
  local had=() names
  mkdir -p .cache
  ! venv_works || read -r -a had <"$STAMP"
  mapfile -t names < <(printf '%s\n' "${had[@]}" "$@" | sort -u)
  [[ -n ${had[*]} && $(<"$STAMP") == "$(stamp "${names[@]}")" ]] ||
    step "Installing into $VENV what this needs: ${names[*]}" make_environment "${names[@]}"
}

# resolved_environment NAME RESOLUTION: .cache/venv-NAME, with versions that uv chooses now from the declared ranges; it
# becomes the one that tests run in
resolved_environment() {
  local python='' directory=.cache/venv-$1 versions=.cache/venv-$1.txt wanted
  wanted=(pyproject.toml --extra test --group pyproject.toml:checkout --resolution "$2" --upgrade --no-annotate)
  require_uv
  [[ -x $directory/bin/python ]] || logged venv "$UV" venv --clear --python "$python" "$directory"
  logged resolve "$UV" pip compile --python "$directory/bin/python" "${wanted[@]}" --generate-hashes --no-build -o "$versions"
  install_into "$directory" "$versions"
  tested=$directory
}
