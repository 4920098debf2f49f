"""How a notebook and a prompt show a data set."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from keras_disrnn.data.sessions import Sessions


def _count(sessions: Sessions) -> dict[str, int]:
    """Count what a data set holds."""
    within = np.arange(sessions.features.shape[1] - 1) < sessions.trials_per_session[:, None]
    missed = int((within & ~sessions.row_mask[:, 1:]).sum())
    free = int((sessions.choice_weight > 0).sum())
    counts = {
        "subjects": len(set(sessions.subjects)),
        "sessions": len(sessions),
        "trials": sessions.num_trials,
        "free choices": free,
        "forced": sessions.num_trials - free - missed,
        "missed": missed,
    }
    for index, name in enumerate(sessions.signal_names):
        counts[f"values of {name}"] = int((sessions.dopamine_weight[..., index] > 0).sum())
    return counts


def describe(sessions: Sessions) -> str:
    """Return what a data set holds, in one line."""
    parts = [
        f"{count} {name[:-1] if count == 1 and name.endswith('s') else name}"
        for name, count in _count(sessions).items()
    ]
    signals = "".join(f", {part}" for part in parts[6:])
    return f"<Sessions: {', '.join(parts[:3])} ({', '.join(parts[3:6])}){signals}>"


def describe_in_html(sessions: Sessions) -> str:
    """Return what a data set holds, as a table in HTML."""
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{count:,}</td></tr>"
        for name, count in _count(sessions).items()
    )
    return f"<table><caption>Sessions</caption>{rows}</table>"
