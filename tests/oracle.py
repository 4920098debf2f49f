"""The DisRNN in plain NumPy loops, one session and one time step at a time: a second oracle."""

import numpy as np


def weights_of(layer):
    """Return the weights of an MLP as plain arrays, by name."""
    names = (
        "input_kernel",
        "input_bias",
        "hidden_kernel",
        "hidden_bias",
        "output_kernel",
        "output_bias",
    )
    return {name: np.asarray(getattr(layer, name).numpy(), "float64") for name in names}


def residual_mlp(x, weights, network=None):
    """Run a leaky ReLU residual MLP on one input vector. `network` picks one of several."""
    pick = (lambda a: a) if network is None else (lambda a: a[network])
    stream = x @ pick(weights["input_kernel"]) + pick(weights["input_bias"])
    for kernel, bias in zip(weights["hidden_kernel"], weights["hidden_bias"], strict=True):
        pre = stream @ pick(kernel) + pick(bias)
        stream = stream + np.where(pre > 0, pre, 0.01 * pre)
    return stream @ pick(weights["output_kernel"]) + pick(weights["output_bias"])


def sigma(bottleneck):
    return np.abs(bottleneck.raw_sigma.numpy().astype("float64")) + 1e-5


def multiplier(bottleneck):
    return bottleneck.raw_multiplier.numpy().astype("float64")


def kl(mean, sd):
    return 0.5 * np.sum(mean**2 + sd**2 - 1 - np.log(sd**2))


def run_core(cell, features, noise=None):
    """Compute the latents after each time step of one session, and its KL costs.

    Args:
        cell: A built `DisRNNCell`.
        features: `(time steps, observations)`, NaN on padding.
        noise: Dict of `update_obs (time steps, latents, observations)`, `update_latent (time steps,
            latents, latents)` and `latent (time steps, latents)`, or None.
    """
    weights = weights_of(cell.update_network)
    z = cell.initial_latents.numpy().astype("float64")
    bound = cell.max_latent_value
    latents, costs = [], []
    for step, x in enumerate(features):
        cost = {"latent": 0.0, "update_obs": 0.0, "update_latent": 0.0}
        if not np.isnan(x).all():
            means = np.empty_like(z)
            for j in range(len(z)):
                seen = multiplier(cell.update_obs_bottleneck)[j] * x
                past = multiplier(cell.update_latent_bottleneck)[j] * z
                cost["update_obs"] += kl(seen, sigma(cell.update_obs_bottleneck)[j])
                cost["update_latent"] += kl(past, sigma(cell.update_latent_bottleneck)[j])
                if noise is not None:
                    seen = (
                        seen + sigma(cell.update_obs_bottleneck)[j] * noise["update_obs"][step, j]
                    )
                    past = (
                        past
                        + sigma(cell.update_latent_bottleneck)[j] * noise["update_latent"][step, j]
                    )
                u, v = residual_mlp(np.concatenate([seen, past]), weights, j)
                w = 1 / (1 + np.exp(-u))
                means[j] = (1 - w) * z[j] + w * bound * np.tanh(v / bound)
            cost["latent"] = kl(means, sigma(cell.latent_bottleneck))
            z = means
            if noise is not None:
                z = z + sigma(cell.latent_bottleneck) * noise["latent"][step]
        latents.append(z)
        costs.append(cost)
    return np.array(latents), {name: np.array([c[name] for c in costs]) for name in costs[0]}


def run_readout(readout, inputs, noise=None):
    """Compute the outputs of a readout for `(time steps, inputs)`, and the KL of each time step."""
    weights = weights_of(readout.network)
    means = multiplier(readout.bottleneck) * inputs
    costs = np.array([kl(mean, sigma(readout.bottleneck)) for mean in means])
    read = means if noise is None else means + sigma(readout.bottleneck) * noise
    return np.array([residual_mlp(x, weights) for x in read]), costs


def cognitive_step(name, p, state, choice, reward):
    """Run one trial of a cognitive model. Return the new state and the prediction error."""
    if name == "LeakyActorCritic":
        theta, value = state
        odds = np.exp(theta)
        error = reward - value
        new = np.empty_like(theta)
        for arm in range(len(theta)):
            share = odds[arm] / odds.sum()
            push = 1 - share if arm == choice else -share
            new[arm] = (1 - p["forget"]) * theta[arm] + p["learn"] * error * push
        return (new, (1 - p["alpha_critic"]) * value + p["alpha_critic"] * reward), error
    learn = p.get("alpha_1", p.get("alpha"))
    forget = {
        "QLearning": 0.0,
        "ForgettingQLearning": learn,
        "DifferentialForgettingQLearning": p.get("alpha_2"),
    }[name]
    target = p["kappa_1"] if reward else -p["kappa_2"]
    error = target - state[0][choice]
    new = (1 - forget) * state[0]
    new[choice] = (1 - learn) * state[0][choice] + learn * target
    return (new,), error


def cognitive_start(name, arms):
    return (np.zeros(arms), 0.5) if name == "LeakyActorCritic" else (np.zeros(arms),)


def run_cognitive(name, p, features, arms):
    """Compute the logits and prediction errors of each time step (NaN without a trial)."""
    state = cognitive_start(name, arms)
    logits, errors = [], []
    for step, (choice, reward) in enumerate(features[:, :2]):
        error = np.nan
        if step > 0 and not np.isnan(choice):
            state, error = cognitive_step(name, p, state, int(choice), reward)
        logits.append(state[0])
        errors.append(error)
    return np.array(logits), np.array(errors)


def simulate_cognitive(name, p, sessions, trials, seed):
    """Simulate choices, rewards and prediction errors `(sessions, trials)` in reward blocks."""
    rng = np.random.default_rng(seed)
    choices, rewards, errors = np.zeros((3, sessions, trials))
    for session in range(sessions):
        state = cognitive_start(name, 2)
        for trial in range(trials):
            if trial % 25 == 0:
                good = rng.integers(2)
            odds = np.exp(state[0])
            choice = int(rng.random() < odds[1] / odds.sum())
            reward = float(rng.random() < (0.8 if choice == good else 0.2))
            choices[session, trial], rewards[session, trial] = choice, reward
            state, errors[session, trial] = cognitive_step(name, p, state, choice, reward)
    return choices, rewards, errors
