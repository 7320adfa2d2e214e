"""Try hostile inputs and sudden deaths: `python -m benchmarks.reliability CAMPAIGN`."""

import sys

from .command_line import main

if __name__ == "__main__":
    sys.exit(main())
