#!/usr/bin/env bash
# Make the environment: Java, a virtual environment with the pinned packages, the Delta jars.
# Usage: scripts/setup.sh PYTHON VENV    (called by the Makefile; safe to run again)
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
venv=$2

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

check_python() {
  local version
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
    fail "$python does not run; install Python 3.11, 3.12 or 3.13, or name one: make setup PYTHON=python3.12"
  case $version in
    3.11 | 3.12 | 3.13) ;;
    *) fail "$python is Python $version, but 3.11, 3.12 or 3.13 is needed; name one: make setup PYTHON=python3.12" ;;
  esac
}

java_major() {  # major version of the Java that Spark would start, or nothing
  local java=java
  [ -z "${JAVA_HOME:-}" ] || java=$JAVA_HOME/bin/java
  "$java" -version 2>&1 | sed -nE 's/.* version "([0-9]+).*/\1/p' | head -n 1
}

check_java() {
  local found
  found=$(java_major || true)
  [ "${found:-0}" -lt 17 ] || return 0
  if [ -z "${JAVA_HOME:-}" ] && [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ]; then
    say "installing Java from the distribution"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && { apt-get install -y -qq --no-install-recommends openjdk-17-jre-headless ||
      apt-get install -y -qq --no-install-recommends openjdk-21-jre-headless; }; } >/dev/null ||
      fail "apt-get could not install openjdk-17-jre-headless; install Java 17 or 21 and run make setup again"
    found=$(java_major || true)
    [ "${found:-0}" -lt 17 ] || return 0
  fi
  fail "Spark needs Java 17 or 21, found ${found:-none}; install one (Debian, Ubuntu: sudo apt-get install" \
    "openjdk-17-jre-headless; macOS: brew install openjdk@17) or point JAVA_HOME at it"
}

with_pip() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$@"; }

make_environment() {
  local uv=uv
  # One that was made in another place, or whose interpreter is gone, is made anew.
  if [ -e "$venv/.ready" ] && [ "$(cat "$venv/.ready")" != "$venv" ]; then rm -rf "$venv"; fi
  "$venv/bin/python" -c '' 2>/dev/null || rm -rf "$venv"
  if uv --version >/dev/null 2>&1; then
    [ -x "$venv/bin/python" ] || uv venv --quiet --python "$("$python" -c 'import sys; print(sys.executable)')" "$venv"
  else
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv" ||
      fail "$python cannot make a virtual environment; install its venv module (Debian: apt-get install python3-venv)"
    # The environment gets a uv of its own: pip takes several times as long for the same packages.
    uv=$venv/bin/uv
    "$uv" --version >/dev/null 2>&1 || with_pip uv || say "uv cannot be installed here"
  fi
  if "$uv" --version >/dev/null 2>&1; then
    say "installing the packages into $venv with $uv"
    "$uv" pip install --quiet --python "$venv/bin/python" --constraint constraints.txt --editable '.[dev]'
  else
    say "installing the packages into $venv with pip (several minutes)"
    with_pip --editable '.[dev]'
  fi
}

fetch_jars() {  # Spark resolves spark.jars.packages into ~/.ivy2.5.2 once; later runs find them there, offline too
  local log=$venv/setup-spark.log
  say "starting Spark once, which fetches the Delta jars"
  "$venv/bin/python" scripts/check_spark.py >"$log" 2>&1 || {
    grep -vE 'spark-packages|^[[:space:]]*$' "$log" | tail -n 15 >&2
    fail "Spark did not start (whole log: $log). Jars not found or download failed: check the network, then remove" \
      "the folders ~/.ivy2.5.2 and ~/.m2/repository/io/delta and run make setup again"
  }
}

keep_classes() {
  local log=$venv/setup-java.log
  say "keeping Spark's classes in ${XDG_CACHE_HOME:-~/.cache}/mlspark, 200 MB, so that jobs start sooner"
  scripts/java_archive.sh "$venv" >"$log" 2>&1 || say "they were not kept: jobs start as ever (whole log: $log)"
}

check_python
check_java
make_environment
fetch_jars
if [ "${MLSPARK_JAVA_ARCHIVE:-}" != no ]; then keep_classes; fi
printf '%s\n' "$venv" >"$venv/.ready"
say "ready"
