# The benchmarks: measure, print the tables, judge the ratios. Sourced by ./dev.

readonly RESULTS=benchmarks/results

usage_of_bench() {
  fail "$1" "./dev bench [--quick] [--check] [--compare SAVED.json] [ARGUMENT OF PYTEST...]"
}

# bench [--quick] [--check] [--compare SAVED.json] [ARGUMENT OF PYTEST...]
bench() {
  local judge=() selected=() quick=''
  while (($# > 0)); do
    case $1 in
      --quick) quick=yes judge+=(--quick) selected=(--deselect benchmarks/test_overhead.py::test_docker_run) ;;
      --check) judge+=(--check) ;;
      --compare)
        [[ -f ${2:-} ]] || usage_of_bench "--compare takes the file of an earlier run, and '${2:-}' is none"
        judge+=(--compare "$2")
        shift
        ;;
      *) break ;;
    esac
    shift
  done
  setup bench
  mkdir -p "$RESULTS"
  rm -f "$RESULTS"/*.md "$RESULTS"/*.png "$RESULTS/floor.json"
  "$VENV/bin/python" -m pytest benchmarks -m benchmark --benchmark-enable \
    --benchmark-json="$RESULTS/latest.json" "${selected[@]}" "$@"
  "$VENV/bin/python" benchmarks/report.py
  measured dispatch
  measured memory
  measured transport --json "$RESULTS/transport.json"
  if [[ -z $quick ]]; then
    measured floor --json "$RESULTS/floor.json"
    measured openloop --json "$RESULTS/openloop.json" --plot "$RESULTS/openloop.png"
    measured growth --json "$RESULTS/growth.json" --plot "$RESULTS/growth.png"
  fi
  local status=0
  measured ratios "${judge[@]}" || status=$?
  "$VENV/bin/python" -m benchmarks.page
  return "$status"
}

# measured NAME ARGUMENT...: run a benchmark, and keep what it prints for the page
measured() {
  "$VENV/bin/python" -m "benchmarks.$1" "${@:2}" | tee "$RESULTS/$1.md"
}
