"""CapFilt's pictures a second, against Hugging Face's captioner and matcher: `benchmarks.run --only capfilt`.

python -m benchmarks.capfilt [--device cuda]     # flags are those of benchmarks.run
"""

import sys

from benchmarks.run import main

if __name__ == "__main__":
    main(["--only", "capfilt", *sys.argv[1:]])
