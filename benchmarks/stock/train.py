"""Training that takes no time: every weight changes a little, at random. Notes when each round began and ended.

Run by NVFlare's Client API in the sites of `benchmarks.federations`.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import nvflare.client as flare
import torch

STEPS = 1


def main(folder: Path) -> None:
    """Answer every round; append one line of JSON a round to a file of this site in `folder`."""
    flare.init()
    site = flare.get_site_name()
    random = torch.Generator().manual_seed(os.getpid())
    with (folder / f"{site}.jsonl").open("a", encoding="utf-8", buffering=1) as file:
        while flare.is_running():
            received = flare.receive()
            if received is None:
                break
            began = time.time()
            params = {
                name: torch.as_tensor(value) + torch.empty(tuple(np.shape(value))).normal_(0, 1e-3, generator=random)
                for name, value in received.params.items()
            }
            ended = time.time()
            flare.send(flare.FLModel(params=params, meta={"NUM_STEPS_CURRENT_ROUND": STEPS}))
            file.write(json.dumps({"began": began, "ended": ended}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
