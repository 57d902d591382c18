#!/usr/bin/env bash
# A memoryview of a pyarrow Buffer has signed bytes, and so is not equal to the bytes that the Buffer is equal to.
#
# Packages: pyarrow 25.0.1, numpy 2.2.6.
# Expected: memoryview(buffer)[0] is the byte, 0 to 255, as of bytes, bytearray, mmap, and as buffer[0] is.
# Seen:     Arrow exports its buffers with the format "b", signed: a byte of 192 is -64, memoryview(buffer) == bytes(buffer)
#           is False as soon as one is over 127, though buffer.equals says True, and numpy.asarray(buffer) has int8. All that
#           Arrow hands out is so, like what Codec.decompress gives. A parser of pages, offsets or varints that was tried on
#           text works, and goes wrong with the first byte over 127.
# So:       memoryview(buffer).cast("B"), or numpy.frombuffer(buffer, numpy.uint8).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q pyarrow==25.0.1 numpy==2.2.6

cat > probe.py <<'PY'
import numpy as np
import pyarrow as pa

page = bytes([192, 1])
codec = pa.Codec("lz4_raw")
for buffer in (pa.py_buffer(page), codec.decompress(codec.compress(page), len(page))):
    view = memoryview(buffer)
    print(view.format, view[0], buffer[0], view == page, buffer.equals(pa.py_buffer(page)), np.asarray(buffer).dtype)
    print(view.cast("B")[0], view.cast("B") == page)
print(memoryview(page)[0], memoryview(bytearray(page)) == page)
PY
seen=$(venv/bin/python probe.py)
echo "$seen"
diff <(echo "$seen") - <<'SEEN' || { echo "changed"; exit 1; }
b -64 192 False True int8
192 True
b -64 192 False True int8
192 True
192 True
SEEN
