"""Where a silo and its trainer exchange weights during a training: nothing of it outlasts the job.

    <startup kit>/<job>/siloscope     weights of all and of this silo alone, float32, for their owner's eyes only

What was trained here less what it was trained from is the update that nobody else may see. So the end of a job removes the
folder, and the next training those of jobs whose process was killed.
"""

import shutil
from pathlib import Path

from silo_app.encoder.journal import is_being_written

__all__ = ["NAME", "remove_left_over"]

NAME = "siloscope"


def remove_left_over(kit: Path, jobs: Path) -> list[str]:
    """Remove the folders of trainings in which this silo takes part no more; return which jobs'.

    A training is a job with a journal in `jobs`; who writes it holds its lock.
    """
    left = [folder for folder in kit.glob(f"*/{NAME}") if (jobs / folder.parent.name).is_dir()]
    over = [folder for folder in left if not is_being_written(jobs / folder.parent.name)]
    for folder in over:
        shutil.rmtree(folder, ignore_errors=True)
    return sorted(folder.parent.name for folder in over)
