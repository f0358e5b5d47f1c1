"""Prepare, start and run one of NVFlare's own federations in its proof-of-concept environment; a process of its own.

`import nvflare.recipe` changes sys.argv, and the environment speaks to standard output: neither belongs into a benchmark's
own process.
"""

import sys
from pathlib import Path

SITES = 3


def main(backbone: str, way: str, rounds: int, folder: Path) -> int:
    """Run the recipe for FedAvg, with homomorphic encryption for `he`; return the exit status."""
    from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
    from nvflare.app_opt.pt.recipes.fedavg_he import FedAvgRecipeWithHE
    from nvflare.recipe import PocEnv

    made = FedAvgRecipeWithHE if way == "he" else FedAvgRecipe
    recipe = made(
        name=f"stock_{way}",
        model={"class_path": "benchmarks.stock.network.Network", "args": {"backbone": backbone}},
        min_clients=SITES,
        num_rounds=rounds,
        train_script=str(Path(__file__).with_name("train.py")),
        train_args=str(folder),
    )
    environment = PocEnv(num_clients=SITES, use_he=way == "he")
    run = recipe.execute(environment)
    try:
        run.get_result(timeout=3600)
        return 0 if "COMPLETED" in str(run.get_status()) else 1
    finally:
        environment.stop(clean_up=False)


if __name__ == "__main__":
    way, backbone, rounds, folder = sys.argv[2], sys.argv[1], int(sys.argv[3]), Path(sys.argv[4])
    sys.argv = sys.argv[:1]
    sys.exit(main(backbone, way, rounds, folder))
