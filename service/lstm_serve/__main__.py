"""python -m lstm_serve: the same as lstm-serve."""

import sys

from lstm_serve.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
