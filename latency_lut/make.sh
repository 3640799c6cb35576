#!/usr/bin/env bash
# Makes the shipped tables from sources/, the same bytes each time: bash latency_lut/make.sh
# With --check it writes nothing and fails if a file differs. Each line below is an ordinary command of the package.
set -euo pipefail
cd "$(dirname "$0")/.."
make() { python -m dnas.latency "$@"; }
at=latency_lut/sources

make import $at/pixel1_single_path_nas.json --from single-path-nas --networks $at/pixel1_networks.csv --out latency_lut/pixel1.json "$@"
make import $at/fbnet_cifar100_hw_nas_bench.json --from hw-nas-bench --part pixel3 --out latency_lut/pixel3_fbnet_cifar.json "$@"
make import $at/fbnet_cifar100_hw_nas_bench.json --from hw-nas-bench --part raspi4 --out latency_lut/raspi4_fbnet_cifar.json "$@"
make calibrate $at/samsung_s8_header.json --fit --measured $at/samsung_s8_networks.csv --blocks $at/pixel1_single_path_nas.json --blocks-from single-path-nas --spaces fbnet:expand1=false fbnet:expand1=true fbnet_cifar:expand1=false fbnet_cifar:expand1=true fbnet_mini:expand1=false fbnet_mini:expand1=true --out latency_lut/samsung_s8.json "$@"
