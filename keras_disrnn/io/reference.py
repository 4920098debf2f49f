"""Parameters of the reference implementation (`disentangled-rnns`, JAX), in and out.

Its parameters are a nested dict `{module: {name: array}}`, as Haiku makes them; its configuration
is a dict of its config dataclass' fields. Its plain model (choice alone) and its neural model
(choice and one neural signal, read from the latents after the update) are both `DisRNNModel`s, and
so is its multi-subject model of choice.

Its multi-subject model reads the subject's index before the observations, ours after them: features
`[subject, choice, reward]` of its are `[choice, reward, subject]` here. The same goes for the rows
of the input weights, which are put in order on the way.
"""

import numpy as np

from keras_disrnn.models.disrnn_model import CHOICE_AND_REWARD, DisRNNModel

_PLAIN = "hk_disentangled_rnn"
_NEURAL = "hk_neuro_disentangled_rnn"
_SUBJECTS = "multisubject_dis_rnn"

_CONFIG = {
    "obs_size": "num_observations",
    "output_size": "num_arms",
    "latent_size": "num_latents",
    "update_net_n_units_per_layer": "update_units",
    "update_net_n_layers": "num_update_layers",
    "choice_net_n_units_per_layer": "choice_units",
    "choice_net_n_layers": "num_choice_layers",
    "activation": "activation",
    "max_latent_value": "max_latent_value",
    "latent_penalty": "latent_penalty",
    "update_net_obs_penalty": "update_obs_penalty",
    "update_net_latent_penalty": "update_latent_penalty",
    "choice_net_latent_penalty": "choice_penalty",
    "l2_scale": "l2_scale",
}
_NEURAL_CONFIG = {
    "neural_activity_net_n_units_per_layer": "dopamine_units",
    "neural_activity_net_n_layers": "num_dopamine_layers",
    "neural_activity_net_latent_penalty": "dopamine_penalty",
}
_SUBJECTS_CONFIG = {
    "max_n_subjects": "subjects",
    "subject_embedding_size": "subject_units",
    "subj_penalty": "subject_penalty",
    "update_net_subj_penalty": "update_subject_penalty",
    "choice_net_subj_penalty": "choice_subject_penalty",
}
_NAMES = {
    _PLAIN: _CONFIG,
    _NEURAL: {**_CONFIG, **_NEURAL_CONFIG},
    _SUBJECTS: {**_CONFIG, **_SUBJECTS_CONFIG},
}
_UNUSED = {_SUBJECTS: ("latent_multipliers", "subj_emb_global_multipliers")}
"""Multipliers that the reference makes and never reads, beside the latent bottleneck's."""


def from_haiku(params, config):
    """Builds our model from the reference's parameters.

    Args:
        params: `{module: {name: array}}` of its plain, its neural or its multi-subject model.
        config: Its configuration as a dict.

    Returns:
        A built `DisRNNModel`; of a neural model with `dopamine_timing="post"`, of the others with
        `signals=0`. The subjects' names are `"0"`, `"1"`, ..., their numbers there.

    Raises:
        ValueError: If the parameters are of no known model, or an array is missing, left over or
            of another shape than the configuration says.
    """
    root = _root(params)
    names = _NAMES[root]
    missing = sorted(set(names) - set(config))
    if missing:
        raise ValueError(f"config: {missing[0]!r} is missing; got {sorted(config)}")
    _check_sizes(params, root, config)
    arguments = {ours: config[theirs] for theirs, ours in names.items()}
    arguments["num_observations"] += root == _SUBJECTS
    unused = _UNUSED.get(root, ("latent_multipliers",))
    neural = root == _NEURAL
    model = DisRNNModel(
        **arguments,
        num_signals=1 if neural else 0,
        dopamine_timing="post",
        reference={
            "config": dict(config),
            **{name: _take(params, root, name).tolist() for name in unused},
        },
    )
    model.build((None, None, model.num_observations))
    places = _places(model, root)
    given = {(module, name) for module in params for name in params[module]}
    unknown = sorted(given - set(places) - {(root, name) for name in unused})
    if unknown:
        raise ValueError(f"params: {'|'.join(unknown[0])!r} is not a parameter of this model")
    values = {}
    for (module, name), (variable, index, swap) in places.items():
        value = _take(params, module, name)
        value = value.T if swap else value
        whole = values.setdefault(variable.path, (variable, np.empty(variable.shape, "float32")))[1]
        if value.shape != whole[index].shape:
            expected = whole[index].T.shape if swap else whole[index].shape
            got = value.T.shape if swap else value.shape
            raise ValueError(f"params: {module}|{name}: expected shape {expected}, got {got}")
        whole[index] = value
    for variable, value in values.values():
        variable.assign(value)
    return model


def to_haiku(model):
    """The reference's parameters and configuration of our model.

    Args:
        model: A built `DisRNNModel` without dopamine, or with one dopamine signal read from the
            latents after the update, and two arms or more; with subjects, without dopamine.

    Returns:
        `(params, config)`: what `from_haiku` takes. A model that came from there gives back exactly
        what it was made of.

    Raises:
        ValueError: If the reference has no such model.
    """
    if not isinstance(model, DisRNNModel):
        raise ValueError(f"model: expected a DisRNNModel, got a {type(model).__name__}")
    readout = model.dopamine_readout
    if readout is not None:
        if model.subjects:
            raise ValueError(
                "signals: the reference has no multi-subject model with a neural signal, this "
                f"model has {model.num_subjects} subjects and {model.num_signals} signals"
            )
        if readout.timing != "post":
            raise ValueError(
                "dopamine_timing: the reference reads the latents after the update ('post'), "
                f"this model reads them {readout.timing!r}"
            )
        if model.num_signals != 1 or model.num_observations != CHOICE_AND_REWARD:
            raise ValueError(
                "the reference's neural model has 1 signal and 2 observations, this model has "
                f"{model.num_signals} and {model.num_observations}"
            )
    root = _SUBJECTS if model.subjects else _PLAIN if readout is None else _NEURAL
    names = _NAMES[root]
    ours = {
        **model.get_config(),
        "num_observations": model.num_trial_observations,
        "subjects": model.num_subjects,
    }
    reference = model.reference or {}
    config = {"noiseless_mode": False, "x_names": None, "y_names": None}
    config.update(reference.get("config", {}))
    config.update({theirs: ours[name] for theirs, name in names.items()})
    params = {}
    for (module, name), (variable, index, swap) in _places(model, root).items():
        value = np.array(variable.numpy()[index], copy=True)
        params.setdefault(module, {})[name] = value.T.copy() if swap else value
    for name in _UNUSED.get(root, ("latent_multipliers",)):
        size = ours["num_latents"] if name == "latent_multipliers" else model.subject_units
        params[root][name] = np.array(reference.get(name, [1.0] * size), "float32")
    return params, config


def _root(params):
    for root in _NAMES:
        if root in params:
            return root
    raise ValueError(
        f"params: expected the modules of {_PLAIN!r}, {_NEURAL!r} or {_SUBJECTS!r}, got "
        f"{sorted(params)[:3]}"
    )


def _check_sizes(params, root, config):
    """Holds the configuration against the arrays before anything of its sizes is made."""
    first = f"{root}/~update_latents/update_net"
    kernel = _take(params, first, "input_weights")
    sizes = {
        "latent_size": len(np.atleast_1d(_take(params, root, "latent_inits"))),
        "update_net_n_units_per_layer": kernel.shape[-1] if kernel.ndim else 0,
        "update_net_n_layers": sum(name.endswith("_biases") for name in params[first]) - 2,
    }
    readouts = {"choice_net": f"{root}/~predict_targets/choice_net"}
    if root == _NEURAL:
        readouts["neural_activity_net"] = f"{root}/neural_activity_net"
    for name, module in readouts.items():
        bias = np.atleast_1d(_take(params, module, "input_biases"))
        sizes[f"{name}_n_units_per_layer"] = len(bias)
        sizes[f"{name}_n_layers"] = sum(each.endswith("_biases") for each in params[module]) - 2
    sizes["obs_size"] = (kernel.shape[0] if kernel.ndim else 0) - sizes["latent_size"]
    if root == _SUBJECTS:
        table = np.atleast_2d(_take(params, f"{root}/subject_embedding_weights", "w"))
        sizes["max_n_subjects"], sizes["subject_embedding_size"] = table.shape
        sizes["obs_size"] -= table.shape[1]
    output = _take(params, readouts["choice_net"], "output_biases")
    sizes["output_size"] = len(np.atleast_1d(output))
    for name, size in sizes.items():
        if config[name] != size:
            raise ValueError(f"config: {name} is {config[name]!r}, but the parameters have {size}")


def _take(params, module, name):
    if module not in params or name not in params[module]:
        raise ValueError(f"params: {module}|{name} is missing")
    return np.asarray(params[module][name])


def _places(model, root):
    """Where each of the reference's arrays lives: to (variable, index into it, transposed)."""
    cell = model.core.cell
    places = {(root, "latent_inits"): (cell.initial_latents, ..., False)}

    def bottleneck(name, layer, swap=False, elements=slice(None)):
        index = (..., elements)
        places[root, f"{name}_sigma_params"] = (layer.raw_sigma, index, swap)
        if layer.raw_multiplier is not None:
            places[root, f"{name}_multipliers"] = (layer.raw_multiplier, index, swap)

    def network(module, layer, member=(), before=0):
        whole = (*member, ...)
        # Theirs reads the embedding first, ours after the inputs that there are `before` it.
        rows = np.arange(layer.input_kernel.shape[-2])
        embedding = rows[before : before + model.subject_units]
        rows = np.concatenate([embedding, np.delete(rows, embedding)])
        places[module, "input_weights"] = (layer.input_kernel, (*member, rows), False)
        places[module, "output_weights"] = (layer.output_kernel, whole, False)
        for edge in ("input", "output"):
            places[module, f"{edge}_biases"] = (getattr(layer, f"{edge}_bias"), whole, False)
        for depth in range(layer.num_layers):
            index = (depth, *member, ...)
            places[module, f"layer_{depth}_weights"] = (layer.hidden_kernel, index, False)
            places[module, f"layer_{depth}_biases"] = (layer.hidden_bias, index, False)

    observed = model.num_trial_observations
    choice = model.choice_readout.bottleneck
    bottleneck("update_net_obs", cell.update_obs_bottleneck, True, slice(observed))
    bottleneck("update_net_latent", cell.update_latent_bottleneck, swap=True)
    bottleneck("latent", cell.latent_bottleneck)
    if model.subjects:
        embedding = model.subject_embedding
        places[f"{root}/subject_embedding_weights", "w"] = (embedding.kernel, ..., False)
        places[f"{root}/subject_embedding_weights", "b"] = (embedding.bias, ..., False)
        bottleneck("subj_emb_global", embedding.bottleneck)
        bottleneck("update_net_subj", cell.update_obs_bottleneck, True, slice(observed, None))
        bottleneck("choice_net_latent", choice, elements=slice(cell.num_latents))
        bottleneck("choice_net_subj", choice, elements=slice(cell.num_latents, None))
    else:
        bottleneck("choice_net", choice)
    for latent in range(cell.num_latents):
        name = f"{root}/~update_latents/update_net" + (f"_{latent}" if latent else "")
        network(name, cell.update_network, (latent,), observed)
    name = f"{root}/~predict_targets/choice_net"
    network(name, model.choice_readout.network, before=cell.num_latents)
    if model.dopamine_readout is not None:
        bottleneck("neural_activity_net", model.dopamine_readout.bottleneck)
        network(f"{root}/neural_activity_net", model.dopamine_readout.network)
    return places
