#!/bin/sh
# What the examples are tested with, beside Node and Python: PHP with curl, Ruby, and a JDK. Debian and its kin; asks nothing.
set -eu
missing=""
command -v curl >/dev/null || missing="$missing curl"
command -v php >/dev/null && php -m | grep -qx curl || missing="$missing php-cli php-curl"
command -v ruby >/dev/null || missing="$missing ruby"
command -v python3 >/dev/null || missing="$missing python3"
command -v javac >/dev/null || missing="$missing default-jdk-headless"
[ -z "$missing" ] && exit 0
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing
