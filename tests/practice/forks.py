"""Grading runs in copies of a process that has loaded what is slow to load: a start takes no
seconds.

    python forks.py jobs.json

A job is {"arguments", "environment"} as `dsnotes.practice.grade.prepare` returns them.
"""

import gc
import json
import os
import sys
from pathlib import Path


def main() -> None:
    import jaxtyping  # noqa: F401
    import pytest
    import torch._dynamo  # noqa: F401  (torch, and what a module that calls torch.compiler loads)

    gc.freeze()  # else every copy looks through all of this, and so really copies it
    for job in json.loads(Path(sys.argv[1]).read_text("utf8")):
        child = os.fork()
        if child == 0:
            os.environ |= job["environment"]
            os._exit(pytest.main(job["arguments"]))
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
