# The tests, in two parts: without Docker and with it. Sourced by ./dev.
#
# Both parts run, also when the first one fails. The last lines name the tests that failed and the command that runs only them.

readonly MANY=20
# More processes than for so many would wait for the longest files.
readonly MOST_CORES=6

# What is put before the command that runs pytest; `faketime` for another clock.
launcher=(env)

usage_of_test() {
  fail "$1" "./dev test [--newest | --oldest] [--clock +1y] [--random] [ARGUMENT OF PYTEST...]"
}

# tests [--newest | --oldest] [--clock OFFSET] [--random] [ARGUMENT...]
tests() {
  local versions='' clock='' options=() profile=fixed
  while (($# > 0)); do
    case $1 in
      --newest | --oldest)
        [[ -z $versions || $versions == "${1#--}" ]] || usage_of_test "--newest and --oldest exclude each other"
        versions=${1#--}
        ;;
      --clock)
        clock=${2:-}
        [[ $clock =~ ^[+-][0-9]+[smhdy]$ ]] || usage_of_test "--clock takes an offset like +1y or -30d, not '$clock'"
        shift
        ;;
      --random) profile=random ;;
      *) break ;;
    esac
    shift
  done
  options=(${versions:+"--$versions"} ${clock:+--clock "$clock"})
  [[ $profile == fixed ]] || options+=(--random)
  trap 'exit 130' INT
  mkdir -p .cache
  case $versions in
    newest) step "Resolving the newest versions" resolved_environment newest highest ;;
    oldest) step "Resolving the oldest versions" resolved_environment oldest lowest-direct ;;
  esac
  [[ -z $clock ]] || require_faketime "$clock"
  if [[ -n $versions$clock ]]; then
    [[ -n $versions ]] || environment test
    run_parts quick -- "$@"
  else
    setup test
    run_parts quick docker -- "$@"
  fi
}

require_faketime() {
  if ! command -v faketime >/dev/null; then
    may_install || fail "the program faketime is needed; as root: apt-get install faketime"
    step "Installing faketime" apt_install faketime
  fi
  # The kernel measures timeouts, so the monotonic clock stays as it is.
  launcher=(env FAKETIME_DONT_FAKE_MONOTONIC=1 PYTHONPATH="$PWD/tools/clock${PYTHONPATH:+:$PYTHONPATH}" faketime -f "$1")
}

# run_parts PART... -- ARGUMENT...: all parts, then what they came to; uses `options` and `profile` of tests
run_parts() {
  local command="./dev test${options[*]:+ ${options[*]}}" part parts=() titles=() statuses=() none=0
  while [[ $1 != -- ]]; do
    parts+=("$1")
    shift
  done
  shift
  for part in "${parts[@]}"; do
    run_part "$part" "$@"
  done
  summary "$command" "$@"
}

# run_part PART ARGUMENT...: adds to `titles` and `statuses` of run_parts
run_part() {
  local status=0 color=no title markers processes cores elsewhere=() log=.cache/test-$1.log
  cores=$(nproc)
  ((cores <= MOST_CORES)) || cores=$MOST_CORES
  [[ ! -t 1 ]] || color=yes
  case $1 in
    # These share nothing, and often wait: with two processes for each core, the cores rested a quarter of the time.
    # In the order of the directories the long files come first; xdist's own order would begin them last, since they have
    # few tests. tests/conftest.py has the exceptions.
    # Directories without a test of the part are not even read, which takes each process seconds.
    quick)
      title="without Docker" markers="not docker" processes=$((2 * cores + 2))
      elsewhere=(corpus docker newcomer)
      ;;
    # The containers need cores, too. The first file, the campaign of faults, takes as long as most others together.
    docker)
      title="with Docker" markers="docker" processes=$((cores + 2))
      elsewhere=(corpus faults fuzz local property unit)
      ;;
  esac
  say "Tests $title"
  : >".cache/test-$1.failed"
  POOL_FAILED_TESTS=.cache/test-$1.failed "${launcher[@]}" "$tested/bin/python" -m pytest --color="$color" \
    -m "$markers and not benchmark and not corpus" --hypothesis-profile="$profile" \
    -n "$processes" --dist loadfile --no-loadscope-reorder "${elsewhere[@]/#/--ignore=tests/}" "${@:2}" 2>&1 |
    tee "$log" || status=$?
  titles+=("$title")
  statuses+=("$status")
}

# summary COMMAND ARGUMENT...: exits with the status of the first part that failed
summary() {
  local number status failed=0 names=()
  say "Result"
  for number in "${!parts[@]}"; do
    status=${statuses[number]}
    printf '    %-15s %s\n' "${titles[number]}:" "$(last_line ".cache/test-${parts[number]}.log")"
    # 5 means that no test was selected: the arguments may name tests of one part only.
    if ((status == 5)); then
      none=$((none + 1))
    elif ((status != 0)); then
      failed=${failed/#0/$status}
      mapfile -t -O "${#names[@]}" names <".cache/test-${parts[number]}.failed"
      [[ -s .cache/test-${parts[number]}.failed ]] ||
        printf '    %s\n' "pytest ended with status $status and named no test; see .cache/test-${parts[number]}.log"
    fi
  done
  ((none < ${#parts[@]})) || exit 5
  ((none == 0 || $# > 1)) || fail "no test was found in one part"
  ((${#names[@]} == 0)) || name_failed "$1" "${names[@]}"
  exit "$failed"
}

last_line() { tail -n 1 "$1" | sed 's/\x1b\[[0-9;]*m//g; s/^=* *//; s/ *=*$//'; }

# name_failed COMMAND TEST...
name_failed() {
  local command=$1 quoted
  shift
  printf '\nfailed:\n'
  printf '    %s\n' "$@"
  if (($# > MANY)); then
    quoted=--last-failed
  else
    quoted=$(printf ' %q' "$@")
  fi
  printf '\nto run only what failed:\n    %s\n' "$command ${quoted# }"
}
