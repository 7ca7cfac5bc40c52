"""Print what a bug report needs, secrets blotted out: python launch/env.py [runs/<experiment>/<name>] [--json]"""

import argparse
import json
import sys
from pathlib import Path

# A checkout works without being installed, and is what runs even where another version is.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console  # noqa: E402
from rich.text import Text  # noqa: E402

from cut_dist.environment import Facts, collect_environment, guarded  # noqa: E402
from cut_dist.run_health import run_facts  # noqa: E402


def show(sections: dict[str, Facts]) -> None:
    """A column of names and one of whole values, whatever the terminal's width, so that they can be pasted."""
    console = Console()
    for title, facts in sections.items():
        console.print(Text(title, "bold"))
        width = max(map(len, facts), default=0)
        for name, value in facts.items():
            console.print(Text(f"  {name:<{width}}  {value}"), soft_wrap=True)
        console.print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("run", type=Path, nargs="?", help="a run's folder, to be described too")
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    arguments = parser.parse_args()
    sections = collect_environment()
    if arguments.run:
        sections[f"run {arguments.run}"] = guarded(lambda: run_facts(arguments.run))
    if arguments.json:
        print(json.dumps(sections, indent=1, default=str))
    else:
        show(sections)
