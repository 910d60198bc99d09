"""Write turbofan.profile.json: what the 100 training engines of the default model were like.

Run it with the folder that holds train_FD001.txt::

    python models/profile_turbofan.py --data FOLDER

It makes a CSV file of them, a row a cycle, and has `lstm-serve profile` read it. The data is that of
train_turbofan.py, which says where it comes from.
"""

import argparse
import csv
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from lstm_serve.cli.main import main as lstm_serve

MODEL = Path(__file__).with_name("turbofan.h5")
# The number of each sensor in the data, and its name: train_turbofan.py says what it measures.
NUMBERS = (2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21)
NAMES = ["T24", "T30", "T50", "P15", "P30", "Nf", "Nc", "Ps30", "phi", "NRf", "NRc", "BPR", "htBleed", "W31", "W32"]
# Engine, cycle and three settings come before sensor 1 in a row.
OFFSET = 4


def write_table(data: Path, table: Path, of: Callable[[int], bool] = lambda _engine: True) -> None:
    """Write those engines of a file of the data whose number is `of` it as CSV, the numbers as they stand there."""
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["engine", "cycle", *NAMES])
        for line in data.read_text(encoding="ascii").splitlines():
            cells = line.split()
            if of(int(cells[0])):
                writer.writerow([cells[0], cells[1], *(cells[OFFSET + number] for number in NUMBERS)])


def main() -> int:
    """Write the profile. Gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "train.csv"
        write_table(parser.parse_args().data / "train_FD001.txt", table)
        return lstm_serve(["profile", str(MODEL), str(table), "--by", "engine", "--force"])


if __name__ == "__main__":
    sys.exit(main())
