#!/system/bin/sh
# One pass over the probes, on the phone: run.sh calls it. Arguments: folder, pass, threads, runs, degrees.
set -u
remote=$1 pass=$2 threads=$3 runs=$4 cool=$5
cd "$remote" || exit 2
out=logs/$pass
rm -rf "$out"
mkdir -p "$out"

# the fastest cores: of the highest frequency, the last ones first
cpus=${CPUS:-/sys/devices/system/cpu}
order=$(for file in "$cpus"/cpu[0-9]*/cpufreq/cpuinfo_max_freq; do
  number=${file#"$cpus"/cpu}
  echo "$(cat "$file" 2> /dev/null || echo 0) ${number%%/*}"
done | sort -k1,1nr -k2,2nr | head -n "$threads")
mask=0 core=
while read -r _ number; do
  case $number in
    *[!0-9]* | '') continue ;;
  esac
  mask=$((mask | (1 << number)))
  core=${core:-$number}
done << EOF
$order
EOF
mask=$(printf %x "$mask")
pin=
if [ "$mask" != 0 ] && taskset "$mask" true 2> /dev/null; then
  pin="taskset $mask"
fi

heat() {  # of the first zone of the processor, in thousandths of a degree; 0: the phone does not say
  for zone in "${ZONES:-/sys/class/thermal}"/thermal_zone*; do
    case $(cat "$zone/type" 2> /dev/null) in
      *cpu* | *CPU* | *soc*)
        value=$(cat "$zone/temp" 2> /dev/null) || continue
        case $value in
          *[!0-9]* | '') continue ;;
        esac
        [ "$value" -lt 1000 ] && value=$((value * 1000))
        echo "$value"
        return
        ;;
    esac
  done
  echo 0
}

read_or() { cat "$1" 2> /dev/null || echo unknown; }
first=$(heat)
if [ -f logs/first_heat ]; then first=$(cat logs/first_heat); else echo "$first" > logs/first_heat; fi
while read -r name; do
  waited=0
  while [ "$(heat)" -gt $((first + cool * 1000)) ] && [ "$waited" -lt 60 ]; do
    sleep 2
    waited=$((waited + 2))
  done
  {
    echo "# pass=$pass pinned=${pin:+$mask} governor=$(read_or "$cpus/cpu$core/cpufreq/scaling_governor")" \
      "khz=$(read_or "$cpus/cpu$core/cpufreq/scaling_cur_freq") millidegrees=$(heat) waited_s=$waited threads=$threads"
    graph="--graph=models/$name.tflite --num_threads=$threads --use_xnnpack=true"
    once="--num_runs=1 --min_secs=0 --warmup_min_secs=0"
    case $pass in
      profile) options="$once --enable_op_profiling=true" ;;
      golden)
        options="$once --input_layer=$(cat golden/input_name.txt) --input_layer_shape=$(cat golden/input_shape.txt)"
        options="$options --input_layer_value_files=$(cat golden/input_name.txt):golden/images.bin"
        options="$options --output_filepath=$out/$name.bin"
        ;;
      *) options="--num_runs=$runs --min_secs=0.2 --warmup_min_secs=0.1" ;;
    esac
    # shellcheck disable=SC2086
    $pin ./benchmark_model $graph $options
  } > "$out/$name.txt" 2>&1 < /dev/null
done < "passes/$pass.txt"
touch "$out/finished"
