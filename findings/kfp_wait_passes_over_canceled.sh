#!/usr/bin/env bash
# The client of Kubeflow Pipelines waits for a run that was cancelled until its time-out, as if it were running.
#
# Packages: kfp 2.17.0, setuptools 80.9.0.
# Expected: `Client.wait_for_run_completion` returns once a run has ended, however it did: SUCCEEDED, FAILED, SKIPPED, CANCELED
#           (CANCELING is the state before that).
# Seen:     it returns at once for the first three; for CANCELED it asks again and again, and raises TimeoutError when its time
#           is over. `RunPipelineResult.wait_for_run_completion` without a time-out waits for as long as a timedelta holds.
# So:       poll `get_run(run_id).state` oneself, and take CANCELED for an end.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q kfp==2.17.0 setuptools==80.9.0

cat > probe.py <<'PY'
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import kfp
from kfp.client import Client


class Api(BaseHTTPRequestHandler):
    """Answers a run by its id, which is its state, as the API does; and that the API is well."""

    def do_GET(self):
        run = self.path.rpartition("/")[2]
        body = {"run_id": run, "state": run} if "/runs/" in self.path else {"multi_user": False}
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = Client(host=f"http://127.0.0.1:{server.server_port}")
seen = {}
for state in ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"):
    assert client.get_run(state).state == state
    try:
        client.wait_for_run_completion(state, timeout=3, sleep_duration=1)
        seen[state] = "returns"
    except TimeoutError:
        seen[state] = "TimeoutError"
print("kfp", kfp.__version__, "on Python", sys.version.split()[0])
print("expected: returns for each of", ", ".join(seen))
print("seen:    ", ", ".join(f"{state}: {what}" for state, what in seen.items()))
same = seen == dict.fromkeys(("SUCCEEDED", "FAILED", "SKIPPED"), "returns") | {"CANCELED": "TimeoutError"}
print("reproduced" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PY
venv/bin/python probe.py 2>/dev/null
