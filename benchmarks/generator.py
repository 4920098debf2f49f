"""Compare the rate of synthetic trials with the reference's, in turns.

    python benchmarks/generator.py --reference-python PATH/TO/python
    python benchmarks/generator.py --models

`PATH/TO/python` is an interpreter with the authors' package (`pip install
disentangled-rnns==0.1.8`), which plays Q-learning. Without it, the program times only our agents.
With `--models`, fitted models play instead of agents: cognitive baselines, a GRU, and a DisRNN of
the size of the example (5 latents, update networks 8 x 4, choice readout 4 x 2). The DisRNN plays
as it is, as a SavedModel, and with its step compiled without XLA.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

REFERENCE = """
import json, sys, time
from disentangled_rnns.library import two_armed_bandits_w_dopamine as bandits
sessions, trials = map(int, sys.argv[1:])
for line in sys.stdin:
    start = time.perf_counter()
    bandits.get_q_learning_with_dopamine_dataset(n_trials=trials, n_sessions=sessions)
    print(json.dumps(sessions * trials / (time.perf_counter() - start)), flush=True)
"""


def ours(agent, sessions, trials):
    from keras_disrnn import bandit

    start, busy = time.perf_counter(), time.process_time()
    bandit.simulate(
        agent, bandit.DriftingBandit(), num_sessions=sessions, num_trials=trials, seed=0
    )
    count = sessions * trials
    return count / (time.perf_counter() - start), count / (time.process_time() - busy)


def models():
    """Return agents made from models, by name. Their weights do not change the time."""
    import tempfile

    import tensorflow as tf

    from keras_disrnn import DisRNNModel, baselines, export
    from keras_disrnn.bandit import agent_from_model

    disrnn = DisRNNModel(num_latents=5, seed=0)
    folder = tempfile.TemporaryDirectory()
    export.export(disrnn, f"{folder.name}/model")
    saved = tf.saved_model.load(f"{folder.name}/model")
    agents = {
        "Q baseline": baselines.QLearning(alpha=0.3, kappa_1=1.5, kappa_2=1.5),
        "actor-critic baseline": baselines.LeakyActorCritic(
            alpha_critic=0.3, learn=1.0, forget=0.05
        ),
        "GRU of 16 units": baselines.GRU(units=16),
        "DisRNN": disrnn,
        "DisRNN, SavedModel": saved,
    }
    agents = {name: agent_from_model(model) for name, model in agents.items()}
    plain = agent_from_model(disrnn)
    plain._step = tf.function(plain._step.python_function)
    return agents | {"DisRNN, step without XLA": plain}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference-python", help="interpreter with the authors' package")
    parser.add_argument("--models", action="store_true", help="time models instead of agents")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--trials", type=int, default=200)
    arguments = parser.parse_args()
    from keras_disrnn import bandit

    agents = {
        agent.name: agent
        for agent in (
            bandit.QLearning(),
            bandit.ForgettingQLearning(),
            bandit.DifferentialForgettingQLearning(),
            bandit.RewardSeeking(),
            bandit.LeakyActorCritic(),
        )
    }
    cases = {"q_learning, 300 sessions": (agents["q_learning"], 300)}
    cases |= {f"{name}, 20,000 sessions": (agent, 20_000) for name, agent in agents.items()}
    if arguments.models:
        players = models()
        cases = {f"{name}, 20,000 sessions": (agent, 20_000) for name, agent in players.items()}
        cases["DisRNN, 300 sessions"] = (players["DisRNN"], 300)
        for agent in players.values():
            ours(agent, 300, 2)
    reference = None
    if arguments.reference_python:
        reference = subprocess.Popen(
            [arguments.reference_python, "-c", REFERENCE, "100", str(arguments.trials)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    rates = {name: [] for name in (*cases, "reference")}
    per_processor = {name: [] for name in rates}
    ours(agents["q_learning"], 300, arguments.trials)
    for _ in range(arguments.turns):
        for name, (agent, sessions) in cases.items():
            wall, processor = ours(agent, sessions, arguments.trials)
            rates[name].append(wall)
            per_processor[name].append(processor)
        if reference:
            reference.stdin.write("go\n")
            reference.stdin.flush()
            answer = ""
            while not answer.strip().replace(".", "", 1).isdigit():
                answer = reference.stdout.readline()
                if not answer:
                    sys.exit("the reference ended early")
            rates["reference"].append(json.loads(answer))
    if reference:
        reference.stdin.close()
        reference.wait()
    print(
        "what | trials per second | per processor second | "
        "ratio to the reference (smallest to largest)"
    )
    print("---|---|---|---")
    for name, values in rates.items():
        if not values:
            continue
        ratio = "–"
        if reference and name != "reference":
            ratios = [v / r for v, r in zip(values, rates["reference"], strict=True)]
            ratio = f"{statistics.median(ratios):.0f} ({min(ratios):.0f} to {max(ratios):.0f})"
        busy = per_processor[name]
        busy = f"{statistics.median(busy):,.0f}" if busy else "–"
        print(f"{name} | {statistics.median(values):,.0f} | {busy} | {ratio}")


if __name__ == "__main__":
    main()
