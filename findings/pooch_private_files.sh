#!/usr/bin/env bash
# Files fetched by pooch are readable by their owner only, whatever the umask.
#
# Packages: pooch 1.9.0.
# Expected: a downloaded file gets the usual mode, 0644 under umask 022, so that a cache filled by
#           one user (an image build, an administrator) serves the others.
# Seen:     0600: the file is a renamed temporary file and keeps the temporary file's mode. The
#           folder that pooch makes around it is 0755, so others see the file and cannot open it.
# So:       set the mode after fetching when a data folder is shared or baked into an image.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q pooch==1.9.0

cat > probe.py <<'PY'
import functools
import http.server
import os
import stat
import sys
import threading

import pooch


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def mode(path):
    return oct(stat.S_IMODE(os.stat(path).st_mode))


os.umask(0o022)
os.mkdir("site")
with open("site/rows.csv", "w") as file:
    file.write("a,b\n1,2\n")
handler = functools.partial(Quiet, directory="site")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
pooch.get_logger().setLevel("WARNING")
address = f"http://127.0.0.1:{server.server_port}/rows.csv"
fetched = pooch.retrieve(address, known_hash=None, fname="rows.csv", path="cache")
server.shutdown()

print("pooch", pooch.__version__)
print("expected: 0o644 under umask 022, like any file written here:", mode("site/rows.csv"))
print(f"seen:     the file {mode(fetched)}, its folder {mode('cache')}")
same = mode("site/rows.csv") == "0o644" and mode(fetched) == "0o600" and mode("cache") == "0o755"
print("reproduced" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PY
NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 venv/bin/python probe.py
