"""moto's S3 in a process of its own: python -P s3_server.py PORT_FILE BUCKET"""

import logging
import signal
import sys
import urllib.request
from pathlib import Path

from moto.server import ThreadedMotoServer


def main() -> None:
    port_file, bucket = Path(sys.argv[1]), sys.argv[2]
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line for each request
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    request = urllib.request.Request(f"http://{host}:{port}/{bucket}", method="PUT")
    urllib.request.urlopen(request).close()  # noqa: S310
    partial = port_file.with_suffix(".partial")
    partial.write_text(str(port))
    partial.rename(port_file)
    signal.pause()


if __name__ == "__main__":
    main()
