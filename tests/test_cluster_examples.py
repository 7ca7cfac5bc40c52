"""launch/*.example, read as DeepSpeed's launcher reads them, and the files that docs/cluster.md names."""

from __future__ import annotations

import re

from deepspeed.launcher.runner import _parse_hostfile

from cut_dist.lineage import is_secret


def test_the_hostfile_names_four_nodes(root):
    lines = (root / "launch/hostfile.example").read_text().splitlines()
    assert dict(_parse_hostfile(lines)) == {f"node{i}": 8 for i in range(1, 5)}


def test_the_environment_file_is_names_and_values_only_and_holds_no_secret(root):
    lines = (root / "launch/deepspeed_env.example").read_text().splitlines(keepends=True)
    for line in lines:
        name, value = line.split("=", maxsplit=1)  # what the launcher does; other lines end it
        assert re.fullmatch(r"[A-Z_]+", name) and value.strip() and not is_secret(name)


def test_the_guide_names_files_that_are_there(root):
    text = (root / "docs/cluster.md").read_text()
    named = set(re.findall(r"\blaunch/[\w./]+\w", text)) | set(re.findall(r"tests/test_\w+\.py", text))
    assert not [name for name in named if not (root / name).exists()]
    for anchor in re.findall(r"README\.md#(\w+)", text):
        assert re.search(rf"^## {anchor}$", (root / "README.md").read_text(), re.MULTILINE | re.IGNORECASE)
