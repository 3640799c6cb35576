#!/bin/sh
# Times every probe of this folder on a phone with TFLite's benchmark_model, through adb. Made by python -m dnas.latency probe.
#
#   BENCHMARK_MODEL=path/to/benchmark_model sh run.sh
#
# BENCHMARK_MODEL  the tool, built for the phone (TensorFlow's site has binaries); already on the phone: leave it unset
# THREADS          threads, each on a core of its own, the fastest ones (default 1)
# RUNS             calls of each probe in each pass (default 50)
# COOL             degrees Celsius above the first temperature at which a pause is made (default 8)
# REMOTE           folder on the phone (default /data/local/tmp/dnas)
#
# Every probe runs once in each pass, in an order of the pass's own, so that drift meets all alike. What was measured is kept:
# run this again after an interruption, and finished passes are skipped. Then: python -m dnas.latency collect THIS_FOLDER
set -eu
cd "$(dirname "$0")"
threads=${THREADS:-1} runs=${RUNS:-50} cool=${COOL:-8} remote=${REMOTE:-/data/local/tmp/dnas}
tool=$remote/benchmark_model
command -v adb > /dev/null || { echo "adb is not installed (Android platform tools)" >&2; exit 2; }
adb get-state > /dev/null || { echo "no phone: connect one, with USB debugging switched on" >&2; exit 2; }

adb shell "mkdir -p $remote"
if [ -n "${BENCHMARK_MODEL:-}" ]; then
  adb push "$BENCHMARK_MODEL" "$tool"
  adb shell "chmod 755 $tool"
fi
adb shell "test -x $tool && echo found" | grep -q found || { echo "no $tool on the phone: set BENCHMARK_MODEL" >&2; exit 2; }
adb push models passes on_phone.sh "$remote/"
[ ! -d golden ] || adb push golden "$remote/"

mkdir -p logs
{
  for property in ro.product.manufacturer ro.product.model ro.soc.model ro.board.platform ro.build.version.release; do
    printf '%s=%s\n' "$property" "$(adb shell getprop "$property" | tr -d '\r')"
  done
} > logs/device.txt
cat logs/device.txt

for list in passes/*.txt; do
  pass=$(basename "$list" .txt)
  if [ -f "logs/$pass/finished" ]; then
    echo "pass $pass is there"
    continue
  fi
  echo "pass $pass: $(wc -l < "$list" | tr -d ' ') probes"
  adb shell "sh $remote/on_phone.sh $remote $pass $threads $runs $cool"
  rm -rf "logs/$pass"
  adb pull "$remote/logs/$pass" logs/
done
echo "done: python -m dnas.latency collect $(pwd) --out mine.json"
