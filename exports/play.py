"""Step an exported model through one session: python play.py SAVED_MODEL TRIALS.csv.

TRIALS.csv has the columns choice (0, 1, ...) and reward, with one row per trial. The program needs
only TensorFlow.
"""

import csv
import sys

import tensorflow as tf


def main(folder: str, trials: str) -> None:
    """Print the predicted probability of each choice, and the predicted response."""
    model = tf.saved_model.load(folder)
    with open(trials, newline="", encoding="utf-8") as file:
        rows = [(int(row["choice"]), float(row["reward"])) for row in csv.DictReader(file)]
    outputs = model.step(tf.zeros((1, 2)), model.initial_state(1)["latents"])
    print("trial,probability_of_choice,predicted_dopamine")
    for trial, (choice, reward) in enumerate(rows):
        probability = tf.nn.softmax(outputs["choice"])[0, choice].numpy()
        outputs = model.step(tf.constant([[float(choice), reward]]), outputs["latents"])
        response = outputs.get("dopamine")
        dopamine = "" if response is None else f"{response[0, 0].numpy():.4f}"
        print(f"{trial},{probability:.4f},{dopamine}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
