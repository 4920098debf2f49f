"""Write the table and the figure of docs/recovery.md from folders of `keras-disrnn recover`.

    python benchmarks/recovery_table.py FOLDER [FOLDER ...] --out recovery [--failures]

FOLDER is the folder of `keras-disrnn recover --out`, or, with `--sizes`, one of the folders in it.
Folders of the same agent and size are combined. If several contain the same seed, the last one
counts. The program writes `OUT.md`, `OUT.png` and `OUT.pdf`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

HEAD = (
    "agent",
    "sessions x trials",
    "graph found, of seeds",
    "graph of choice found",
    "likelihood minus true agent's, mean (worst)",
    "dopamine R², mean (smallest)",
    "\\|r\\| with latent, mean (smallest)",
    "error of the learning rate, mean",
)


def read(folders):
    """Return one row per seed: the results of `recover`, and `size`."""
    results = {}
    for folder in map(Path, folders):
        config = folder / "config.yaml"
        if not config.exists():
            config = folder / "config.json"  # version 0.1.0
        data = yaml.safe_load(config.read_text(encoding="utf-8"))["data"]
        sessions, trials = (data.get(f"num_{n}", data.get(n)) for n in ("sessions", "trials"))
        size = f"{sessions} x {trials}"
        for file in folder.glob("seed-*/result.json"):
            result = json.loads(file.read_text(encoding="utf-8"))
            results[result["agent"], size, result["seed"]] = {**result, "size": size}
    if not results:
        raise SystemExit(f"{', '.join(folders)}: expected seed-*/result.json, got none")
    return pd.DataFrame(results.values()).sort_values("seed", ignore_index=True)


def table_row(agent, size, rows):
    rows = rows.dropna(axis=1, how="all")
    r = rows[[name for name in rows if name.endswith(": r")]].to_numpy(float)
    rates = [name.removesuffix(": alpha") for name in rows if name.endswith(": alpha")]
    errors = [rows[f"{n}: alpha"].astype(float) - rows[f"{n}: true_alpha"] for n in rates]
    cells = (
        agent.replace("_", " "),
        size,
        f"{rows['graph'].sum()} of {len(rows)}",
        f"{rows['choice_graph'].sum()}",
        f"{rows['difference'].mean():+.5f} ({rows['difference'].min():+.5f})",
        f"{rows['dopamine_r2'].mean():.4f} ({rows['dopamine_r2'].min():.4f})",
        f"{r.mean():.3f} ({r.min():.3f})",
        f"{np.nanmean(np.abs(errors)):.3f}",
    )
    return f"| {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--out", required=True, help="path of the files without their ending")
    parser.add_argument("--failures", action="store_true", help="print the graphs of failures")
    given = parser.parse_args()

    from keras_disrnn.plots import plot_recovery, save_figure
    from keras_disrnn.utils.files import write_text

    table = read(given.folders)
    groups = list(table.groupby(["agent", "size"], sort=False))
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    lines += [table_row(agent, size, rows) for (agent, size), rows in groups]
    write_text(f"{given.out}.md", "\n".join(lines) + "\n")
    print("\n".join(lines))
    for (agent, size), rows in groups:
        print(f"{agent}, {size}: seeds {', '.join(map(str, rows['seed']))}")
        for row in rows[~rows["graph"].astype(bool)].to_dict("records"):
            if given.failures:
                print(f"  seed {row['seed']}: {row['found']} ({row['difference']:+.5f})")
    labelled = table.assign(agent=table["agent"] + ",\n" + table["size"])
    for ending in ("png", "pdf"):
        save_figure(f"{given.out}.{ending}", plot_recovery, labelled)


if __name__ == "__main__":
    main()
