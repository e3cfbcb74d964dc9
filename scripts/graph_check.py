#!/usr/bin/env python3
"""Counts the graphs again that `partisan sim --out DIR` has written, with networkx, and compares.

    scripts/graph_check.py DIR/edges-*.txt

Makes itself a virtual environment with networkx from PyPI (in _build/graph_check) on the first run. Shortest
paths are taken from all nodes of graphs up to 3,000 nodes, else from the first 300 (and compared within 1 %).
"""
import os
import subprocess
import sys
import venv

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "_build", "graph_check")
EXACT, SOURCES = 3000, 300


def in_environment():
    python = os.path.join(HERE, "bin", "python3")
    if os.path.abspath(sys.prefix) == os.path.abspath(HERE):
        return
    if not os.path.exists(os.path.join(HERE, "ready")):
        venv.create(HERE, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "networkx==3.4.2"], check=True)
        open(os.path.join(HERE, "ready"), "w").close()
    os.execv(python, [python, os.path.abspath(__file__), *sys.argv[1:]])


def read(path):
    import networkx

    told, graph = {}, networkx.Graph()
    with open(path) as lines:
        for line in lines:
            words = line.split()
            if words[0] == "#":
                told[words[1]] = float(words[2])
            elif len(words) == 1:
                graph.add_node(int(words[0]))
            else:
                graph.add_edge(int(words[0]), int(words[1]))
    return told, graph


def count(graph):
    import networkx

    nodes = graph.number_of_nodes()
    sources = list(graph) if nodes <= EXACT else list(graph)[:SOURCES]
    total = pairs = longest = 0
    for source in sources:
        lengths = networkx.single_source_shortest_path_length(graph, source)
        total += sum(lengths.values())
        pairs += len(lengths) - 1
        longest = max(longest, *lengths.values())
    return {
        "clustering": networkx.average_clustering(graph),
        "components": networkx.number_connected_components(graph),
        "degree_mean": 2 * graph.number_of_edges() / nodes,
        "path_mean": total / max(pairs, 1),
        "path_longest": longest,
    }, len(sources) == nodes


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    in_environment()
    wrong = 0
    for path in sys.argv[1:]:
        told, graph = read(path)
        counted, exact = count(graph)
        for name, value in sorted(counted.items()):
            if not exact and name == "path_longest":
                continue
            tolerance = 1e-2 * value if not exact and name == "path_mean" else 1e-9
            same = abs(told[name] - value) <= tolerance
            wrong += not same
            print(f"{'ok  ' if same else 'FAIL'} {path} {name}: {told[name]} and {value}")
    sys.exit(f"{wrong} figures differ" if wrong else 0)


if __name__ == "__main__":
    main()
