"""The structure that a fitted model uses, as a directed graph."""

import networkx

from keras_disrnn.analysis.bottlenecks import compute_bottlenecks, embedding_names, latent_names
from keras_disrnn.objectives.metrics import OPEN_BELOW

READOUTS = {"choice": "choice readout", "dopamine": "dopamine readout"}


def make_graph(edges):
    """A graph from its edges, as `compute_graph` gives it.

    Args:
        edges: Pairs `(source, target)`. Sources are names of observations or latents, targets names
            of latents, `"choice readout"` or `"dopamine readout"`. What is read or updated and is
            neither an observation nor a readout is a latent: of the sources those that are also
            targets. A source `"subject 1"` is a dimension of the subjects' embedding.

    Returns:
        A `networkx.DiGraph`; a latent's node has the attribute `kind` `"latent"`, one of the
        embedding's `"subject"`, any other its own name.
    """
    edges = list(edges)
    graph = networkx.DiGraph(edges)
    latents = {target for _, target in edges} - set(READOUTS.values())
    for node in graph:
        kind = "subject" if node.startswith("subject ") else node
        graph.nodes[node]["kind"] = "latent" if node in latents else kind
    return graph


def compute_graph(model, threshold=OPEN_BELOW):
    """Where information can flow in a fitted model.

    An edge stands where a bottleneck is open. A dimension of the subjects' embedding whose own
    bottleneck is closed is left out with its edges, and so is a latent whose own bottleneck is
    closed, unless an open bottleneck of the dopamine readout reads it: the latents are opened for
    that readout. A latent's edge into its own update network is left out too, because the gate
    carries every latent on, whether or not its update network reads it.

    Args:
        model: A built `DisRNNModel`.
        threshold: Sigma below which a bottleneck is open.

    Returns:
        A `networkx.DiGraph`, see `make_graph`.
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


def same_graph(one, other):
    """Whether two graphs are the same but for the names of latents and of the embedding's parts."""
    return networkx.is_isomorphic(
        one, other, node_match=lambda left, right: left["kind"] == right["kind"]
    )


def cluster_graphs(graphs):
    """Which graphs are the same but for the names of the latents.

    Args:
        graphs: A list of graphs.

    Returns:
        A list of integers, equal where the graphs are the same, counted from 0 in the order in
        which they first come.
    """
    seen, clusters = [], []
    for graph in graphs:
        # Cheap, and the same for graphs that are the same; it spares the search for most others.
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


def graph_to_dict(graph):
    """The graph in the types of JSON: `nodes`, a dict of name to kind, and `edges`, pairs."""
    return {"nodes": dict(graph.nodes(data="kind")), "edges": sorted(map(list, graph.edges))}


def graph_from_dict(values):
    """The graph that `graph_to_dict` wrote."""
    graph = networkx.DiGraph()
    for name, kind in values["nodes"].items():
        graph.add_node(name, kind=kind)
    graph.add_edges_from(map(tuple, values["edges"]))
    return graph


def choice_part(graph):
    """The graph without the dopamine readout, which stage 1 has no part in.

    A latent that only that readout had to do with goes with it.
    """
    kept = networkx.DiGraph(graph)
    kept.remove_nodes_from([READOUTS["dopamine"]])
    kept.remove_nodes_from(list(networkx.isolates(kept)))
    return kept


def dopamine_part(graph):
    """Of the graph only what the dopamine readout reads."""
    return networkx.DiGraph(graph.edge_subgraph(graph.in_edges(READOUTS["dopamine"])))


def describe_graph(graph):
    """The graph in one line, such as `choice, reward > z1; z1 > choice readout`."""
    targets = {}
    for source, target in graph.edges:
        targets.setdefault(target, []).append(source)
    order = sorted(targets, key=lambda name: (name in READOUTS.values(), name))
    return "; ".join(f"{', '.join(sorted(targets[name]))} > {name}" for name in order)
