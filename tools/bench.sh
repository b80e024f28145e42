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
  rm -f "$RESULTS/floor.json"
  "$VENV/bin/python" -m pytest benchmarks -m benchmark --benchmark-enable \
    --benchmark-json="$RESULTS/latest.json" "${selected[@]}" "$@"
  "$VENV/bin/python" benchmarks/report.py
  [[ -n $quick ]] || "$VENV/bin/python" -m benchmarks.floor --json "$RESULTS/floor.json"
  "$VENV/bin/python" -m benchmarks.ratios "${judge[@]}"
}
