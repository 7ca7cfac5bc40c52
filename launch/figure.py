"""Draw the curves of a run and write its numbers: python launch/figure.py runs/quickstart/default out/curves"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cut_dist.figure import save_figure  # noqa: E402

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("run", type=Path, help="a run's folder, runs/<experiment>/<name>")
    parser.add_argument("target", type=Path, help="where to write <target>.png and <target>.json")
    arguments = parser.parse_args()
    try:
        save_figure(arguments.run, arguments.target)
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")
    print(f"{arguments.target}.png and {arguments.target}.json written")
