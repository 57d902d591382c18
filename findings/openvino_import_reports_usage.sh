#!/usr/bin/env bash
# `import openvino` tells a statistics server, without being asked to.
#
# Packages: openvino 2026.4.1, with openvino-telemetry 2025.2.0, which it requires.
# Expected: importing a library connects nowhere, least of all in a job or a server.
# Seen:     each import makes an identifier below the user's home (intel/openvino_ga_cid) and connects to
#           www.google-analytics.com. Opting out is a command of its own, which writes another file into
#           that home: a container without it reports at each start. Where openvino_telemetry cannot be
#           imported, OpenVINO does without it, and says nothing to anybody.
#           Here the connection goes to a proxy on loopback that refuses it, so nothing leaves.
# So:       sys.modules["openvino_telemetry"] = None before the first import, or opt out in the image.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q openvino==2026.4.1 openvino-telemetry==2025.2.0
mkdir plain without

cat > proxy.py <<'PY'
import contextlib
import socket
import threading


@contextlib.contextmanager
def refusing():
    """Yield the address of a proxy that refuses all, and the hosts that it is asked for."""
    hosts = []
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection:
                    hosts.append(connection.recv(4096).split()[1].decode())
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}", hosts
    listening.close()
PY
cat > probe.py <<'PY'
import os
import subprocess
import sys
from pathlib import Path

from proxy import refusing

PROGRAMS = {
    "plain": "import openvino; print('openvino', openvino.__version__)",
    "without": "import sys; sys.modules['openvino_telemetry'] = None; import openvino",
}
seen = {}
for home, program in PROGRAMS.items():
    with refusing() as (address, hosts):
        variables = {"HOME": str(Path(home).resolve()), "https_proxy": address, "http_proxy": address}
        run = [sys.executable, "-c", program + "; import time; time.sleep(3)"]
        subprocess.run(run, env=os.environ | variables | {"no_proxy": ""}, check=True)
    seen[home] = sorted({host.partition(":")[0] for host in hosts}), (Path(home) / "intel" / "openvino_ga_cid").exists()

print("expected: no host asked for, no identifier, in both")
print(f"seen:     {seen}")
same = seen == {"plain": (["www.google-analytics.com"], True), "without": ([], False)}
print("reproduced" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PY
venv/bin/python probe.py
