#!/bin/sh
# What the alerts are tested with: promtool, Prometheus and Alertmanager. Debian and its kin; asks nothing, and starts
# none of their services.
set -eu
missing=""
command -v promtool >/dev/null && command -v prometheus >/dev/null || missing="$missing prometheus"
command -v prometheus-alertmanager >/dev/null || command -v alertmanager >/dev/null || missing="$missing prometheus-alertmanager"
[ -z "$missing" ] && exit 0
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing
