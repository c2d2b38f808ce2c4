"""Spoils a recording (csrc/replay/recording.h) and replays it, to see that `replay` notices.

    python spoil_recording.py short|fresh|other RECORDING REPLAY

``short``: the memory of a tensor lacks its last bytes. ``fresh``: a kernel reads what nobody has written. ``other``: a
result was another.
"""

import re
import subprocess
import sys
from pathlib import Path

CASE = rb"case softmax_kl \d+ float32\n"


def spoil(how: str, data: bytes) -> bytes:
    """``data`` with a mistake in its first case of softmax_kl."""
    pattern = rb"after \d+ written\n" if how == "other" else rb"before \d+ (\d+) given\n"
    begin = data.index(b"\n", re.search(CASE, data).end())
    found = re.compile(pattern).search(data, begin)
    head, rest = data[: found.start()], data[found.end() :]
    if how == "other":
        return head + found[0] + rest[:3] + bytes([rest[3] ^ 64]) + rest[4:]  # in a float32's exponent
    size = int(found[1])
    line = b" ".join(found[0].split()[:2])
    if how == "short":
        return head + b"%b %d given\n" % (line, size - 8) + rest[: size - 8] + rest[size:]
    return head + b"%b %d fresh\n" % (line, size) + rest[size + 1 :]


if __name__ == "__main__":
    how, recording, replay = sys.argv[1:]
    spoilt = Path(f"{recording}.{how}")
    spoilt.write_bytes(spoil(how, Path(recording).read_bytes()))
    sys.exit(subprocess.run([replay, spoilt], check=False).returncode)
