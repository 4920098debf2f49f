"""The structure of a fitted model as a directed graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import networkx

from keras_disrnn.analysis.bottlenecks import compute_bottlenecks, embedding_names, latent_names
from keras_disrnn.utils.thresholds import OPEN_BELOW

if TYPE_CHECKING:
    from keras_disrnn.models.disrnn_model import DisRNNModel

READOUTS = {"choice": "choice readout", "dopamine": "dopamine readout"}


def make_graph(edges: Iterable[tuple[str, str]]) -> networkx.DiGraph:
    """Makes a graph from its edges, as `compute_graph` returns it.

    Args:
        edges: Pairs `(source, target)`. Sources are names of observations or latents. Targets are
            names of latents, `"choice readout"` or `"dopamine readout"`. Sources that are also
            targets are latents. A source `"subject 1"` is a dimension of the subject embedding.

    Returns:
        The graph. The attribute `kind` of a node is `"latent"` for a latent, `"subject"` for a
        dimension of the embedding, and the name of the node for others.
    """
    edges = list(edges)
    graph = networkx.DiGraph(edges)
    latents = {target for _, target in edges} - set(READOUTS.values())
    for node in graph:
        kind = "subject" if node.startswith("subject ") else node
        graph.nodes[node]["kind"] = "latent" if node in latents else kind
    return graph


def compute_graph(model: DisRNNModel, threshold: float = OPEN_BELOW) -> networkx.DiGraph:
    """Computes where information can flow in a fitted model.

    There is an edge for every open bottleneck, with these exceptions. A dimension of the embedding
    is left out if its own bottleneck is closed. A latent is left out if its own bottleneck is
    closed and no open bottleneck of the dopamine readout reads it. (That readout reads latents
    without noise.) The edge from a latent to its own update network is left out, because the gate
    carries over every latent anyway.

    Args:
        model: A built `DisRNNModel`.
        threshold: A bottleneck is open if its sigma is below this.

    Returns:
        The graph; see `make_graph`.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.analysis import compute_graph, describe_graph
    >>> model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0)
    >>> describe_graph(compute_graph(model))
    'choice, reward > z1; z1 > choice readout'
    """
    rows = compute_bottlenecks(model)
    rows = rows[rows["sigma"] < threshold]
    names = set(latent_names(model.core.cell.num_latents))
    dimensions = set(embedding_names(model.subject_units))
    latent, read, own = (rows[rows["group"] == g] for g in ("latent", "dopamine", "subject"))
    kept = set(latent["target"]) | (set(read["source"]) & names)
    shut = (names - kept) | (dimensions - set(own["target"]))
    edges = []
    for group, target, source in zip(rows["group"], rows["target"], rows["source"], strict=True):
        if group == "latent" or source == target or {source, target} & shut:
            continue
        edges.append((source, READOUTS.get(group, target)))
    graph = make_graph(edges)
    for name in kept:
        graph.add_node(name, kind="latent")
    return graph


def same_graph(one: networkx.DiGraph, other: networkx.DiGraph) -> bool:
    """Returns whether two graphs are equal, up to the names of latents and embedding dimensions.

    Args:
        one: A graph of `compute_graph`.
        other: Another graph.

    Returns:
        Whether the graphs are isomorphic, with nodes of the same kind.

    Example:

    >>> from keras_disrnn.analysis import same_graph
    >>> from keras_disrnn.analysis.graph import make_graph
    >>> one = make_graph([("choice", "z1"), ("z1", "choice readout")])
    >>> same_graph(one, make_graph([("choice", "z4"), ("z4", "choice readout")]))
    True
    """
    return networkx.is_isomorphic(
        one, other, node_match=lambda left, right: left["kind"] == right["kind"]
    )


def cluster_graphs(graphs: Sequence[networkx.DiGraph]) -> list[int]:
    """Assigns equal graphs (see `same_graph`) to the same cluster.

    Args:
        graphs: The graphs.

    Returns:
        The cluster of each graph. Clusters are numbered from 0, in the order of their first graph.
    """
    seen: list[tuple[list[tuple[str, int, int]], networkx.DiGraph]] = []
    clusters: list[int] = []
    for graph in graphs:
        # Equal graphs have equal degrees. Comparing them first avoids most isomorphism searches.
        degrees = sorted(
            (kind, graph.in_degree(node), graph.out_degree(node))
            for node, kind in graph.nodes(data="kind")
        )
        same = (
            number
            for number, (other_degrees, other) in enumerate(seen)
            if degrees == other_degrees and same_graph(graph, other)
        )
        number = next(same, len(seen))
        if number == len(seen):
            seen.append((degrees, graph))
        clusters.append(number)
    return clusters


def graph_to_dict(graph: networkx.DiGraph) -> dict[str, Any]:
    """Converts a graph to JSON's types: `nodes`, a dict of name to kind, and `edges`, pairs."""
    return {"nodes": dict(graph.nodes(data="kind")), "edges": sorted(map(list, graph.edges))}


def graph_from_dict(values: Mapping[str, Any]) -> networkx.DiGraph:
    """Restores the graph that `graph_to_dict` converted."""
    graph = networkx.DiGraph()
    for name, kind in values["nodes"].items():
        graph.add_node(name, kind=kind)
    graph.add_edges_from(map(tuple, values["edges"]))
    return graph


def choice_part(graph: networkx.DiGraph) -> networkx.DiGraph:
    """Returns the part of a graph that stage 1 trains: all but the dopamine readout.

    A latent that is only connected to that readout is removed too.
    """
    kept = networkx.DiGraph(graph)
    kept.remove_nodes_from([READOUTS["dopamine"]])
    kept.remove_nodes_from(list(networkx.isolates(kept)))
    return kept


def dopamine_part(graph: networkx.DiGraph) -> networkx.DiGraph:
    """Returns the part of a graph that the dopamine readout reads."""
    return networkx.DiGraph(graph.edge_subgraph(graph.in_edges(READOUTS["dopamine"])))


def describe_graph(graph: networkx.DiGraph) -> str:
    """Describes a graph in one line, such as `choice, reward > z1; z1 > choice readout`.

    Example:

    >>> from keras_disrnn.analysis import describe_graph
    >>> from keras_disrnn.analysis.graph import make_graph
    >>> describe_graph(make_graph([("z1", "choice readout"), ("reward", "z1"), ("choice", "z1")]))
    'choice, reward > z1; z1 > choice readout'
    """
    targets: dict[str, list[str]] = {}
    for source, target in graph.edges:
        targets.setdefault(target, []).append(source)
    order = sorted(targets, key=lambda name: (name in READOUTS.values(), name))
    return "; ".join(f"{', '.join(sorted(targets[name]))} > {name}" for name in order)
