"""The table of models: its parts, its files, and the command that makes it."""

import re

import numpy as np
import pandas as pd
import pytest
import test_events
import yaml

from keras_disrnn import bandit
from keras_disrnn.analysis import (
    Predictions,
    comparison_latex,
    comparison_markdown,
    compute_comparison,
    compute_evaluation,
    compute_fold_comparison,
    true_predictions,
)
from keras_disrnn.cli import main
from keras_disrnn.data import (
    Columns,
    Sessions,
    leave_one_subject_out,
    sessions_from_table,
    split_by_session,
)
from keras_disrnn.models import baselines
from keras_disrnn.plots import plot_comparison

SCORES = ("normalized_likelihood", "mse", "r2")
FAST = ["--settings.num_starts=1", "--settings.gru_steps=10", "--settings.num_bootstrap_samples=20"]
DISRNN = [
    "--training.warmup_steps=4", "--training.stage1_steps=4", "--training.stage2_steps=4",
    "--training.steps_per_epoch=2", "--model.num_latents=2", "--model.update_units=4",
    "--model.num_update_layers=1",
]  # fmt: skip


def several_subjects(count=3, sessions=2, trials=20):
    """Simulate subjects with the same behaviour and different mean responses."""
    played = bandit.simulate(
        bandit.QLearning(), bandit.DriftingBandit(), num_sessions=count * sessions,
        num_trials=trials, seed=1,
    )  # fmt: skip
    subject = np.repeat([f"m{index}" for index in range(count)], sessions)
    height = np.repeat(np.arange(count), sessions)[:, None]
    return Sessions.from_trials(
        played.choice, played.reward, dopamine=played.dopamine + height, subjects=subject
    )


def write_subjects(sessions, path):
    trials = sessions.choice.shape[1] - 1
    pd.DataFrame(
        {
            "subject": np.repeat(sessions.subjects, trials),
            "session": np.repeat(sessions.ids, trials),
            "choice": sessions.choice[:, :-1].reshape(-1),
            "reward": sessions.features[:, 1:, 1].reshape(-1),
            "dopamine": sessions.dopamine[:, 1:, 0].reshape(-1),
        }
    ).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def table():
    sessions = several_subjects()
    models = {
        "naive": baselines.Naive().fit_sessions(sessions),
        "Q_1 & 100%": baselines.QLearning(alpha=0.3, kappa_1=1.5, kappa_2=1.5),
        "GRU": baselines.GRU(2, num_signals=0),
    }
    models["GRU"].build()
    return compute_comparison(models, {"train": sessions}, replicates=50)


# === Folds ===


def test_each_session_is_scored_by_the_models_that_did_not_see_its_subject():
    sessions = several_subjects()
    folds = {
        split.held_out.subjects[0]: {"naive": baselines.Naive().fit_sessions(split.train)}
        for split in leave_one_subject_out(sessions)
    }
    table = compute_fold_comparison(folds, sessions, replicates=50).set_index("part")
    errors = {"train": [], "held_out": []}
    for split in leave_one_subject_out(sessions):
        rewarded = split.train.features[..., 1] > 0
        for part, own in (("train", split.train), ("held_out", split.held_out)):
            for reward in (0, 1):
                counted = split.train.dopamine_weight[..., 0] > 0
                response = split.train.dopamine[..., 0]
                mean = response[counted & (rewarded == reward)].mean()
                inside = (own.dopamine_weight[..., 0] > 0) & ((own.features[..., 1] > 0) == reward)
                errors[part].append((own.dopamine[..., 0][inside] - mean) ** 2)
    everything = sessions.dopamine[sessions.dopamine_weight > 0]
    for part, squares in errors.items():
        mse = np.concatenate(squares).mean()
        assert table.loc[part, "mse"] == pytest.approx(mse, rel=1e-5)
        assert table.loc[part, "r2"] == pytest.approx(1 - mse / everything.var(), rel=1e-4)
    # Mean responses of 0, 1 and 2: the mean of the other mice is far from that of the left-out one.
    assert table.loc["held_out", "mse"] > table.loc["train", "mse"] + 0.3
    assert (table["sessions"] == 6).all()
    with pytest.raises(ValueError, match="folds: expected one for each subject, m0, m1, m2, got"):
        compute_fold_comparison({"m0": folds["m0"]}, sessions)


def test_days_one_and_two_train_and_day_three_tests(shared):
    path = shared / "data" / "dlight_bandit" / "trials.csv.gz"
    sessions = sessions_from_table(
        path, Columns(session="session_id", choice="choice_right", forced="forced_choice")
    )
    split = split_by_session(sessions, 3, offset=2, within_subject=True)
    day = pd.read_csv(path).groupby("session_id")["day"].first()
    assert set(day[list(split.train.ids)]) == {1, 2}
    assert set(day[list(split.held_out.ids)]) == {3}


# === The truth ===


@pytest.mark.parametrize("agent", [bandit.RewardSeeking(), bandit.LeakyActorCritic()])
def test_the_true_agent_scores_as_its_probabilities(agent):
    played = bandit.simulate(agent, bandit.DriftingBandit(), num_sessions=3, num_trials=30, seed=0)
    sessions = Sessions.from_trials(played.choice, played.reward, dopamine=played.dopamine)
    truth = true_predictions(sessions, played.chosen_probability)
    assert isinstance(truth, Predictions)
    scores = compute_evaluation(truth, sessions).summary
    assert scores["choice"]["normalized_likelihood"] == pytest.approx(
        np.exp(np.log(played.chosen_probability).mean()), rel=1e-6
    )
    assert scores["dopamine"]["mse"] == 0


# === How the table is shown ===


def test_markdown_has_scores_and_paired_differences(table):
    text = comparison_markdown(table)
    row = table.set_index("model").loc["Q_1 & 100%"]
    scores, differences = text.split("differences to naive, paired by session")
    likelihood = [row[f"normalized_likelihood{end}"] for end in ("", "_lower", "_upper")]
    assert "| Q_1 &amp; 100% | 3 | {:.4f} [{:.4f}, {:.4f}] |".format(*likelihood) in scores
    assert "Training sessions (6 sessions, 120 choices, 120 responses): scores" in scores
    assert re.search(r"\| GRU \| \d+ \| 0\.\d{4} \[.*\] \| – \| – \|", scores)
    change = [row[f"mse_difference{end}"] for end in ("", "_lower", "_upper")]
    assert "{:.4f} [{:.4f}, {:.4f}]".format(*change) in differences
    assert "| naive |" in scores
    assert "| naive |" not in differences


def test_latex_is_escaped_and_balanced(table):
    text = comparison_latex(table)
    assert text.count(r"\begin{tabular}{lrlll}") == text.count(r"\end{tabular}") == 1
    assert r"Q\_1 \& 100\%" in text
    row = table.set_index("model").loc["Q_1 & 100%"]
    assert f"${row['mse']:.4f}$" in text
    assert f"${row['mse_difference']:.4f}$" in text
    for line in text.splitlines():
        if line.endswith(r"\\") and "multicolumn" not in line:
            assert len(re.findall(r"(?<!\\)&", line)) == 4, line
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


@pytest.mark.parametrize("differences", [False, True])
def test_the_figure_shows_each_score_of_each_model(table, differences):
    figure = plot_comparison(table, differences=differences)
    names = [n for n in table["model"] if not (differences and n == "naive")]
    end = "_difference" if differences else ""
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == names
    for ax, score in zip(figure.axes, SCORES, strict=True):
        points = next(line for line in ax.lines if line.get_marker() == "o")
        rows = table[table["model"].isin(names) & table[f"{score}{end}"].notna()]
        np.testing.assert_allclose(points.get_xdata(), rows[f"{score}{end}"])
        ends = [line[:, 0] for line in ax.collections[0].get_segments()]
        given = rows[[f"{score}{end}_lower", f"{score}{end}_upper"]].dropna().to_numpy()
        assert len(ends) > 0
        np.testing.assert_allclose(ends, given)


# === The command ===


def test_a_table_is_compared(tmp_path, capsys):
    played = bandit.simulate(
        bandit.QLearning(), bandit.DriftingBandit(), num_sessions=6, num_trials=20, seed=1
    )
    played.to_table().to_csv(tmp_path / "table.csv", index=False)
    gru = baselines.GRU(2)
    gru.build()
    gru.save(tmp_path / "gru.keras")
    out = tmp_path / "out"
    arguments = [
        "compare",
        f"--data.table={tmp_path / 'table.csv'}",
        "--data.columns.dopamine=dopamine",
        f"--out={out}",
        "--settings.cognitive=['Q']",
        f"--settings.models={{'untrained': '{tmp_path / 'gru.keras'}'}}",
        *FAST,
        *DISRNN,
    ]
    assert main(arguments) == 0
    table = pd.read_csv(out / "table.csv")
    assert set(table["part"]) == {"train", "held_out"}
    models = [
        "naive", "reward and side", "Q, choice", "Q, choice, affine", "Q, choice, regression",
        "Q, dopamine", "Q, joint", "GRU, choice", "GRU, joint", "DisRNN", "untrained",
    ]  # fmt: skip
    assert list(table["model"]) == models * 2
    own = table[(table["model"] == "Q, dopamine") & (table["part"] == "held_out")]
    assert own["r2"].item() > 0.99
    parameters = pd.read_csv(out / "parameters.csv")
    assert list(dict.fromkeys(parameters["model"])) == ["Q, choice", "Q, dopamine", "Q, joint"]
    assert set(parameters["subject"]) == {"(all)"}
    names = {f"{n}.{e}" for n in ("scores", "differences") for e in ("png", "pdf")}
    names |= {"config.yaml", "parameters.csv", "table.csv", "table.md", "table.tex"}
    names |= {"environment.json", "models"}
    assert {path.name for path in out.iterdir()} == names
    assert (out / "table.md").read_text() in capsys.readouterr().out
    assert main(arguments) == 1
    assert "got a finished result" in capsys.readouterr().err
    again = tmp_path / "again"
    fewer = ["--settings.cognitive=[]", "--settings.gru_units=0", "--settings.models={}"]
    assert main(["compare", f"--config={out / 'config.yaml'}", f"--out={again}", *fewer]) == 0
    rows = table[table["model"].isin(["naive", "reward and side", "DisRNN"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_csv(again / "table.csv"), rows)


def stop(self, *arguments, **settings):
    raise KeyboardInterrupt


def interrupted(arguments, at):
    """Run a command, and interrupt it when a model of that class is to be fitted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(at, "fit_sessions", stop)
        assert main(arguments) == 130


@pytest.mark.parametrize(
    "more",
    [
        ["--settings.per_subject=true", "--settings.disrnn=false"],
        pytest.param(["--settings.leave_one_subject_out=true", *DISRNN], marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_comparison_resumes(tmp_path, capsys, more):
    path = write_subjects(several_subjects(2, sessions=8), tmp_path / "table.csv")
    left_out = "--settings.leave_one_subject_out=true" in more
    command = [
        "compare", f"--data.table={path}", "--data.columns.dopamine=dopamine",
        "--data.held_out_every=2", "--data.held_out_offset=1",
        "--settings.cognitive=['actor-critic']", "--settings.gru_units=2", *more, *FAST,
    ]  # fmt: skip
    assert main([*command, f"--out={tmp_path / 'whole'}"]) == 0
    out = tmp_path / "out"
    command.append(f"--out={out}")
    interrupted(command, baselines.GRU)
    assert not (out / "table.csv").exists()
    assert main([*command, "--seed=1"]) == 1
    assert "got another seed" in capsys.readouterr().err
    if left_out:
        # The second subject is left out now. The fits without the first subject are kept.
        interrupted(command, baselines.LeakyActorCritic)
        assert "actor-critic, choice: read, fitted before" in capsys.readouterr().out
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(baselines.LeakyActorCritic, "fit_sessions", stop)
            assert main(command) == 0
    if left_out:
        assert main(command) == 0
    for name in ("table.csv", "parameters.csv"):
        pd.testing.assert_frame_equal(
            pd.read_csv(out / name), pd.read_csv(tmp_path / "whole" / name), check_exact=True
        )


def test_a_comparison_does_not_resume_with_other_data(tmp_path, capsys):
    path = write_subjects(several_subjects(2, sessions=8), tmp_path / "table.csv")
    command = [
        "compare", f"--data.table={path}", f"--out={tmp_path / 'out'}",
        "--data.held_out_every=2", "--data.held_out_offset=1",
        "--settings.cognitive=[]", "--settings.gru_units=2", "--settings.disrnn=false", *FAST,
    ]  # fmt: skip
    interrupted(command, baselines.GRU)
    write_subjects(several_subjects(2, sessions=8, trials=21), path)
    assert main(command) == 1
    assert "got data that have changed since" in capsys.readouterr().err


def test_synthetic_data_have_their_agent_in_the_table(tmp_path):
    out = tmp_path / "out"
    assert main([
        "compare", f"--out={out}", "--synthetic.agent=forgetting_q_learning",
        "--synthetic.parameters={'alpha': 0.5}", "--synthetic.num_sessions=20",
        "--synthetic.num_held_out_sessions=20", "--synthetic.num_trials=40",
        "--settings.cognitive=['FQ']",
        "--settings.gru_units=0", "--settings.disrnn=false", "--settings.against=true agent", *FAST,
    ]) == 0  # fmt: skip
    table = pd.read_csv(out / "table.csv").set_index(["part", "model"])
    for part in ("train", "held_out"):
        truth, fitted = table.loc[(part, "true agent")], table.loc[(part, "FQ, choice")]
        assert (truth["mse"], truth["r2"], truth["parameters"]) == (0, 1, 0)
        assert fitted["normalized_likelihood_difference"] == pytest.approx(
            fitted["normalized_likelihood"] - truth["normalized_likelihood"]
        )
        assert abs(fitted["normalized_likelihood_difference"]) < 0.005
    parameters = pd.read_csv(out / "parameters.csv").set_index(["model", "parameter"])
    assert parameters.loc[("FQ, choice", "alpha"), "estimate"] == pytest.approx(0.5, abs=0.1)
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["synthetic"]["parameters"] == {"alpha": 0.5}


def test_one_subject_is_left_out_in_turn(tmp_path, capsys):
    sessions = several_subjects(2)
    path = write_subjects(sessions, tmp_path / "table.csv")
    arguments = [
        "compare", f"--data.table={path}", "--data.columns.dopamine=dopamine",
        "--settings.leave_one_subject_out=true", "--settings.cognitive=['Q']",
        "--settings.gru_units=0", *FAST, *DISRNN,
    ]  # fmt: skip
    out = tmp_path / "out"
    assert main([*arguments, f"--out={out}"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("DisRNN: ") == 2
    assert "Without m1:" in printed
    table = pd.read_csv(out / "table.csv").set_index(["part", "model"])
    naive = {
        split.held_out.subjects[0]: {"naive": baselines.Naive().fit_sessions(split.train)}
        for split in leave_one_subject_out(sessions)
    }
    expected = compute_fold_comparison(naive, sessions, replicates=2).set_index("part")
    for part in ("train", "held_out"):
        assert table.loc[(part, "naive"), "mse"] == pytest.approx(expected.loc[part, "mse"])
    parameters = pd.read_csv(out / "parameters.csv")
    assert set(parameters["left_out"]) == {"m0", "m1"}
    assert main([*arguments, f"--out={tmp_path / 'no'}", "--settings.per_subject=true"]) == 1
    assert "per_subject: expected none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--settings.against=nobody"], "against: expected one of 'naive', 'reward and side', 'Q"),
        (["--settings.gru_seeds=0"], "gru_seeds: expected a whole number of at least 1, got 0"),
        (["--settings.partial_pooling=true"], "partial_pooling: expected several subjects, each"),
        (["--training.steps_per_epoch=0"], "steps_per_epoch"),
        (["--synthetic.agent=actor"], "agent"),
        (["--synthetic.parameters={'alpa': 1}"], "alpa"),
        (["--synthetic.parameters={'alpha': 2}"], "alpha"),
        (["--data.columns.dopamine=dlight"], "data.table: expected a file"),
        (["--data.table=nowhere.csv"], "nowhere.csv: expected a file, got no such file"),
        (["--settings.leave_one_subject_out=true"], "expected a table of several subjects"),
    ],
)
def test_a_bad_setting_is_named_before_any_fit(tmp_path, capsys, arguments, message):
    out = tmp_path / "out"
    small = [
        "--synthetic.num_sessions=4",
        "--synthetic.num_held_out_sessions=4",
        "--synthetic.num_trials=10",
    ]
    try:
        status = main(["compare", f"--out={out}", *small, *FAST, *DISRNN, *arguments])
    except SystemExit as stopped:  # the parser ends in this way
        status = stopped.code
    assert status != 0
    printed = capsys.readouterr()
    assert message in printed.err
    assert "naive: " not in printed.out
    assert not out.exists()


# === Events ===


def test_a_table_of_events_becomes_a_table_of_trials(tmp_path, capsys):
    test_events.event_table().to_csv(tmp_path / "events.csv", index=False)
    out = tmp_path / "trials.csv"
    arguments = ["events", f"--out={out}", f"--events={tmp_path / 'events.csv'}"]
    assert main([*arguments, "--settings.arms={lever: 0, right: 1}"]) == 1
    assert "expected an event 'lever'" in capsys.readouterr().err
    arguments.append("--settings.arms={left: 0, right: 1}")
    assert main(arguments) == 0
    assert f"--data.table={out} --data.columns.missed=missed" in capsys.readouterr().out
    sessions = sessions_from_table(out, Columns(missed="missed", trial="trial"))
    assert (sessions.num_sessions, sessions.num_trials) == (2, 5)
    assert main(arguments) == 1
    assert "expected a new file" in capsys.readouterr().err
