"""What the guide to the statistics tells to type works."""

import re
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "statistics.md"


def test_the_code_of_the_guide_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), {})
