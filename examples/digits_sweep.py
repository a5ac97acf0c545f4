"""A hyper-parameter sweep: 64 models of handwritten digits, fitted on whatever machines are there.

    farlane up                            # in another terminal
    python examples/digits_sweep.py

scikit-learn need not be installed here: it comes from the tasks' environment, which each machine
builds once. The models are chosen on one part of the data and judged on another.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from typing import Any

import farlane as fl

ENV = fl.Env(requirements=["scikit-learn==1.7.2"])
BAR = 40  # columns of the progress bar

SWEEP: list[dict[str, Any]] = [
    *({"model": "SVC", "C": c, "gamma": g} for c in (0.3, 1, 3, 10, 30) for g in (3e-4, 1e-3, 3e-3, 0.01, 0.03)),
    *({"model": "LogisticRegression", "C": c, "max_iter": 2000} for c in (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)),
    *({"model": "KNeighborsClassifier", "n_neighbors": k, "weights": w} for k in (1, 3, 5, 9) for w in ("uniform", "distance")),
    *({"model": "RandomForestClassifier", "n_estimators": n, "max_depth": d} for n in (50, 100, 200) for d in (6, 10, 16, None)),
    *({"model": "MLPClassifier", "hidden_layer_sizes": (n,), "alpha": a, "max_iter": 300} for n in (32, 64, 128) for a in (1e-4, 1e-3, 1e-2)),
    *({"model": "ExtraTreesClassifier", "n_estimators": n} for n in (100, 300)),
]  # fmt: skip


@fl.remote(env=ENV, num_cpus=1, memory="512MiB")
def fit(setting: dict[str, Any]) -> dict[str, Any]:
    """Fits one model; how well it does on data that it has not seen, twice over."""
    import time

    import farlane as fl
    from sklearn import ensemble, linear_model, neighbors, neural_network, svm
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    begun = time.perf_counter()
    images, digits = load_digits(return_X_y=True)
    images, held_images, digits, held_digits = train_test_split(
        images, digits, test_size=0.25, random_state=7, stratify=digits
    )
    fit_images, choose_images, fit_digits, choose_digits = train_test_split(
        images, digits, test_size=0.25, random_state=7, stratify=digits
    )
    arguments = dict(setting)
    name = arguments.pop("model")
    kinds = (svm, linear_model, neighbors, ensemble, neural_network)
    kind = next(getattr(module, name) for module in kinds if hasattr(module, name))
    if name not in ("KNeighborsClassifier", "LogisticRegression"):
        arguments["random_state"] = 7
    model = kind(**arguments).fit(fit_images, fit_digits)
    return {
        "setting": setting,
        "task": fl.context().id,
        "chosen_on": float(model.score(choose_images, choose_digits)),
        "held_out": float(model.score(held_images, held_digits)),
        "seconds": time.perf_counter() - begun,
    }


def show_progress(done: int, total: int, begun: float) -> None:
    """One line that grows in a terminal; a line now and then anywhere else."""
    seconds = time.monotonic() - begun
    filled = BAR * done // total
    line = f"[{'█' * filled}{'·' * (BAR - filled)}] {done:3} of {total} fits, {seconds:5.1f} s"
    if sys.stderr.isatty():
        print(f"\r{line}", end="\n" if done == total else "", file=sys.stderr, flush=True)
    elif done % 16 == 0 or done == total:
        print(line, file=sys.stderr, flush=True)


def words(setting: dict[str, Any]) -> str:
    rest = ", ".join(f"{key}={value}" for key, value in setting.items() if key != "model")
    return f"{setting['model']}({rest})"


def receipts(client: fl.Client, fits: list[dict[str, Any]]) -> list[Any]:
    """Where each fit ran, why there, and what it took: anyone in the project can attach to a task by its id."""
    futures = [client.attach(one["task"]) for one in fits]
    client.gather(futures)
    return [future.receipt for future in futures]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, default=len(SWEEP), help="only the first so many fits")
    sweep = SWEEP[: parser.parse_args().limit]
    with fl.Client() as client:
        print(f"{len(sweep)} fits; each machine builds the environment first, which takes a minute once")
        begun = time.monotonic()
        show_progress(0, len(sweep), begun)
        fits: list[dict[str, Any]] = []
        for one in client.map(fit, sweep, order_outputs=False):
            fits.append(one)
            show_progress(len(fits), len(sweep), begun)
        took = time.monotonic() - begun
        print_table(sorted(zip(fits, receipts(client, fits)), key=lambda pair: -pair[0]["chosen_on"]), took)


def largest(receipt: Any) -> str:
    """The terms that counted most when it was placed, and what the next best place would have cost."""
    terms = sorted(receipt.terms, key=lambda term: -term[1])[:2]
    text = ", ".join(f"{name} ${dollars:.2g}" for name, dollars, _ in terms)
    if receipt.runner_up:
        text += f"; else {receipt.runner_up[0]} ${receipt.runner_up[2]:.2g}"
    return text


def print_table(pairs: list[tuple[dict[str, Any], Any]], took: float) -> None:
    wide = max(len(words(one["setting"])) for one, _ in pairs)
    print(
        f"\n{'model':{wide}}  {'accuracy':>8}  {'machine':14} {'region':14} {'seconds':>8} {'cost':>11} {'g CO2e':>9}"
        "  chosen by"
    )
    for one, receipt in pairs:
        where = f"{receipt.node_name:14} {receipt.region:14}"
        grams = "unknown" if receipt.grams is None else f"{receipt.grams:.6f}"
        print(
            f"{words(one['setting']):{wide}}  {one['chosen_on']:8.2%}  {where} {receipt.seconds:8.2f} "
            f"${receipt.cost:10.6f} {grams:>9}  {largest(receipt)}"
        )
    regions = Counter(receipt.region for _, receipt in pairs)
    cost = sum(receipt.cost for _, receipt in pairs)
    busy = sum(one["seconds"] for one, _ in pairs)
    spread = ", ".join(f"{count} in {region}" for region, count in sorted(regions.items()))
    print(f"\n{len(pairs)} fits in {took:.1f} s ({busy:.1f} s of fitting): {spread}; ${cost:.6f} in all")
    print(f"\nthe receipt of the best:\n{pairs[0][1]}\n")
    best = pairs[0][0]
    print(f"best: {words(best['setting'])}, held-out accuracy {best['held_out']:.2%}")


if __name__ == "__main__":
    main()
