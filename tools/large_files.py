"""Name the files over 500 kB among those given, and fail if there is one."""

import sys
from pathlib import Path

MOST_BYTES = 500_000

if __name__ == "__main__":
    large = [name for name in sys.argv[1:] if Path(name).stat().st_size > MOST_BYTES]
    for name in large:
        print(f"{name}: {Path(name).stat().st_size:,} bytes; at most {MOST_BYTES:,} are committed.")
    sys.exit(bool(large))
