"""Make a sweep's results.csv and report.html: python launch/sweep_report.py sweeps/paper --metric p_others --max"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cut_dist.sweep.metric import METRICS  # noqa: E402
from cut_dist.sweep.report import write_report  # noqa: E402
from cut_dist.sweep.results import SweepError  # noqa: E402

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("sweep", type=Path, help="a sweep's folder, sweeps/<name>; it may still be running")
    help_metric = f"rank by another metric than the sweep's own: {', '.join(METRICS)}, verifiable_<name>"
    parser.add_argument("--metric", help=help_metric)
    parser.add_argument("--max", action="store_true", help="the highest of --metric is the best, not the lowest")
    arguments = parser.parse_args()
    if arguments.max and not arguments.metric:
        parser.error("--max says which end of --metric is the better one: give that too")
    try:
        write_report(arguments.sweep, arguments.metric, "max" if arguments.max else "min")
    except SweepError as error:
        sys.exit(f"error: {error}")
