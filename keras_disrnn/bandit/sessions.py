"""`SimulatedSessions`: what an agent did, with the true probabilities and variables."""

from __future__ import annotations

import dataclasses
import html

import numpy as np
import pandas as pd

from keras_disrnn.bandit.environments import better_arms

_ARRAYS = {
    "choice": "chosen arm",
    "reward": "0 or 1",
    "dopamine": "the agent's prediction error",
    "reward_probability": "the environment's, of each arm",
    "choice_probability": "the agent's, of each arm",
    "variables": "the agent's",
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SimulatedSessions:
    """Sessions that an agent played: S sessions with T trials each.

    Every array describes a trial as it was played. Probabilities and variables are those before the
    agent learned from the outcome. `len(played)` is S, and `played[3]`, `played[3:8]` or any other
    NumPy index selects sessions.

    Args:
        choice: int32 `(S, T)`, the chosen arm.
        reward: float32 `(S, T)`, 0 or 1.
        dopamine: float32 `(S, T)`, the agent's prediction error.
        reward_probability: float32 `(S, T, arms)`, the environment's probability of a reward.
        choice_probability: float32 `(S, T, arms)`, the agent's probability of each choice.
        variables: float32 `(S, T, V)`, the agent's variables before the trial's update.
        variable_names: Names of the V variables.
        subject: Name of the agent.
        seed: The seed of the sessions.
        indices: int64 `(S,)`, the index of each session among all sessions of the seed.
        lengths: int `(S,)`, the number of trials of each session. It is below T only for schedules
            of different lengths; the trials after it do not belong to the session.

    Example:

    >>> from keras_disrnn import bandit
    >>> played = bandit.simulate(
    ...     bandit.QLearning(), bandit.BlockBandit(), num_sessions=10, num_trials=50, seed=0
    ... )
    >>> len(played), played[3:8].choice.shape
    (10, (5, 50))
    >>> played[-1].ids
    ('0-000009',)
    """

    choice: np.ndarray
    reward: np.ndarray
    dopamine: np.ndarray
    reward_probability: np.ndarray
    choice_probability: np.ndarray
    variables: np.ndarray
    variable_names: tuple[str, ...]
    subject: str
    seed: int
    indices: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.choice)

    def __getitem__(self, key: int | slice | np.ndarray | list[int]) -> SimulatedSessions:
        if isinstance(key, int | np.integer):
            if not -len(self) <= key < len(self):
                # Iteration over sessions ends here.
                raise IndexError(f"session: expected an index below {len(self)}, got {key}")
            key = [int(key)]
        chosen = np.arange(len(self))[key]
        names = (*_ARRAYS, "indices", "lengths")
        return dataclasses.replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def __repr__(self) -> str:
        return f"{self._headline()}\n{self._contents().to_string(index=False)}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self._headline())}</p>\n{self._contents().to_html(index=False)}"

    def _headline(self) -> str:
        trials, arms = self.reward_probability.shape[1:]
        return (
            f"SimulatedSessions: {len(self)} sessions of {trials} trials, {arms} arms, "
            f"subject {self.subject!r}, seed {self.seed}"
        )

    def _contents(self) -> pd.DataFrame:
        rows = [
            {
                "array": name,
                "shape": "x".join(map(str, getattr(self, name).shape)),
                "content": f"{text}: {', '.join(self.variable_names)}"
                if name == "variables"
                else text,
            }
            for name, text in _ARRAYS.items()
        ]
        return pd.DataFrame(rows)

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the sessions, `"<seed>-<index>"`, unique for an agent and an environment."""
        return tuple(f"{self.seed}-{index:06d}" for index in self.indices)

    @property
    def chosen_probability(self) -> np.ndarray:
        """The agent's probability of each choice that it made, `(S, T)`.

        `exp(log(chosen_probability).mean())` is the normalized likelihood of the true agent, an
        upper bound of the expected likelihood of any fitted model.
        """
        return np.take_along_axis(self.choice_probability, self.choice[..., None], axis=-1)[..., 0]

    @property
    def better_arm(self) -> np.ndarray | None:
        """The better arm on each trial, `(S, T)`, or `None` without blocks.

        There are no blocks if the probabilities of a session drift, or if no session's ever change
        (see `better_arms`). A session that never left its first block has that block's better arm.
        """
        ends = zip(self.reward_probability, self.lengths, strict=True)
        found = [better_arms(p[:length]) for p, length in ends]
        constant = (np.ptp(self.reward_probability, axis=1) == 0).all(axis=-1)
        if all(better is None for better in found) or any(
            better is None and not still for better, still in zip(found, constant, strict=True)
        ):
            return None
        return np.argmax(self.reward_probability, axis=-1)

    def to_table(self) -> pd.DataFrame:
        """Return one row for each trial, with sessions and trials in order.

        Returns:
            A `pandas.DataFrame` with the columns `subject`, `session`, `trial` (from 0), `choice`,
            `reward` and `dopamine` (if the agent has it). The true values follow:
            `reward_probability_0`, ... and `choice_probability_0`, ... by arm, `better_arm` if
            there are blocks, and one column for each variable of the agent.
        """
        sessions, trials = self.choice.shape
        columns = {
            "subject": np.full(sessions * trials, self.subject, dtype=object),
            "session": np.repeat(np.array(self.ids, dtype=object), trials),
            "trial": np.tile(np.arange(trials), sessions),
            "choice": self.choice.reshape(-1),
            "reward": self.reward.reshape(-1),
            "dopamine": self.dopamine.reshape(-1),
        }
        if np.isnan(self.dopamine).all():
            del columns["dopamine"]
        for name in ("reward_probability", "choice_probability"):
            values = getattr(self, name)
            for arm in range(values.shape[-1]):
                columns[f"{name}_{arm}"] = values[..., arm].reshape(-1)
        better = self.better_arm
        if better is not None:
            columns["better_arm"] = better.reshape(-1)
        for index, name in enumerate(self.variable_names):
            columns[name] = self.variables[..., index].reshape(-1)
        table = pd.DataFrame(columns)
        if (self.lengths == trials).all():
            return table
        kept = (np.arange(trials) < self.lengths[:, None]).reshape(-1)
        return table[kept].reset_index(drop=True)
