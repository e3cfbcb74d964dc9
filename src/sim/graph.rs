//! The overlay as an undirected graph, and what is measured of it: as `networkx` defines it, whose
//! results `scripts/graph_check.py` compares.

use std::collections::VecDeque;

/// Sources of a breadth-first search that are taken at once, one bit each.
const TOGETHER: usize = 64;

/// An undirected graph without loops.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Graph {
    /// Where the neighbours of each vertex begin, and the end of the last.
    starts: Vec<u32>,
    /// In ascending order for each vertex.
    neighbors: Vec<u32>,
}

/// Lengths of shortest paths.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Paths {
    /// The mean over pairs with a path.
    pub(crate) mean: f64,
    pub(crate) longest: u32,
}

impl Graph {
    /// A graph of `vertices`; edges have the smaller vertex first and may come in any order, once each.
    pub(crate) fn new(vertices: usize, edges: &[(u32, u32)]) -> Self {
        let mut starts = vec![0u32; vertices + 1];
        for (a, b) in edges {
            starts[*a as usize + 1] += 1;
            starts[*b as usize + 1] += 1;
        }
        for vertex in 0..vertices {
            starts[vertex + 1] += starts[vertex];
        }
        let mut next = starts.clone();
        let mut neighbors = vec![0; edges.len() * 2];
        for (a, b) in edges {
            for (from, to) in [(*a, *b), (*b, *a)] {
                neighbors[next[from as usize] as usize] = to;
                next[from as usize] += 1;
            }
        }
        for vertex in 0..vertices {
            neighbors[starts[vertex] as usize..starts[vertex + 1] as usize].sort_unstable();
        }
        Self { starts, neighbors }
    }

    pub(crate) fn vertices(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    pub(crate) fn neighbors(&self, vertex: usize) -> &[u32] {
        &self.neighbors[self.starts[vertex] as usize..self.starts[vertex + 1] as usize]
    }

    /// How many vertices have 0, 1, 2… neighbours.
    pub(crate) fn degrees(&self) -> Vec<usize> {
        let mut counts = Vec::new();
        for vertex in 0..self.vertices() {
            let degree = self.neighbors(vertex).len();
            counts.resize(counts.len().max(degree + 1), 0);
            counts[degree] += 1;
        }
        counts
    }

    /// The mean over all vertices of the part of the pairs of their neighbours that are neighbours of each
    /// other; 0 for vertices with fewer than two.
    pub(crate) fn average_clustering(&self) -> f64 {
        let of = |vertex: usize| {
            let all = self.neighbors(vertex);
            if all.len() < 2 {
                return 0.0;
            }
            let mut links = 0;
            for (place, a) in all.iter().enumerate() {
                let theirs = self.neighbors(*a as usize);
                let known = |b: &&u32| theirs.binary_search(b).is_ok();
                links += all[place + 1..].iter().filter(known).count();
            }
            2.0 * links as f64 / (all.len() * (all.len() - 1)) as f64
        };
        let sum: f64 = (0..self.vertices()).map(of).sum();
        sum / self.vertices().max(1) as f64
    }

    /// Sizes of the connected components, the largest first.
    pub(crate) fn components(&self) -> Vec<usize> {
        let mut seen = vec![false; self.vertices()];
        let mut sizes = Vec::new();
        let mut todo = Vec::new();
        for first in 0..self.vertices() {
            if std::mem::replace(&mut seen[first], true) {
                continue;
            }
            todo.push(first);
            let mut size = 0;
            while let Some(vertex) = todo.pop() {
                size += 1;
                for next in self.neighbors(vertex) {
                    if !std::mem::replace(&mut seen[*next as usize], true) {
                        todo.push(*next as usize);
                    }
                }
            }
            sizes.push(size);
        }
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes
    }

    /// How far all vertices are from this one; `u32::MAX`: not connected.
    pub(crate) fn distances(&self, source: usize) -> Vec<u32> {
        let mut distances = vec![u32::MAX; self.vertices()];
        let mut todo = VecDeque::from([source]);
        distances[source] = 0;
        while let Some(vertex) = todo.pop_front() {
            for next in self.neighbors(vertex) {
                let next = *next as usize;
                if distances[next] == u32::MAX {
                    distances[next] = distances[vertex] + 1;
                    todo.push_back(next);
                }
            }
        }
        distances
    }

    /// Shortest paths from these vertices to all others.
    pub(crate) fn paths(&self, sources: &[u32]) -> Paths {
        let (mut pairs, mut sum, mut longest) = (0u64, 0u64, 0);
        let mut seen = vec![0u64; self.vertices()];
        let mut front = seen.clone();
        let mut next = seen.clone();
        for sources in sources.chunks(TOGETHER) {
            seen.fill(0);
            front.fill(0);
            for (bit, source) in sources.iter().enumerate() {
                front[*source as usize] |= 1 << bit;
                seen[*source as usize] |= 1 << bit;
            }
            for length in 1.. {
                let mut reached = 0u64;
                for vertex in 0..self.vertices() {
                    let around = self.neighbors(vertex).iter();
                    let all = around.fold(0, |bits, other| bits | front[*other as usize]);
                    next[vertex] = all & !seen[vertex];
                    seen[vertex] |= all;
                    reached += u64::from(next[vertex].count_ones());
                }
                if reached == 0 {
                    break;
                }
                pairs += reached;
                sum += reached * length;
                longest = longest.max(length as u32);
                std::mem::swap(&mut front, &mut next);
            }
        }
        Paths {
            mean: sum as f64 / pairs.max(1) as f64,
            longest,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn edges(vertices: u32, raw: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
        let ordered = raw.into_iter().map(|(a, b)| (a % vertices, b % vertices));
        let ordered = ordered.map(|(a, b)| (a.min(b), a.max(b)));
        ordered
            .filter(|(a, b)| a != b)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    proptest! {
        #[test]
        fn as_counted_by_force(
            vertices in 1u32..90,
            raw in proptest::collection::vec((0u32..90, 0u32..90), 0..260),
        ) {
            let edges = edges(vertices, raw);
            let n = vertices as usize;
            let graph = Graph::new(n, &edges);
            let mut linked = vec![vec![false; n]; n];
            for (a, b) in &edges {
                linked[*a as usize][*b as usize] = true;
                linked[*b as usize][*a as usize] = true;
            }
            // Floyd and Warshall.
            const FAR: u32 = 1000;
            let mut far = vec![vec![FAR; n]; n];
            for a in 0..n {
                for b in 0..n {
                    if linked[a][b] {
                        far[a][b] = 1;
                    }
                }
                far[a][a] = 0;
            }
            for through in 0..n {
                for a in 0..n {
                    for b in 0..n {
                        far[a][b] = far[a][b].min(far[a][through] + far[through][b]);
                    }
                }
            }
            let lengths: Vec<u32> = far.iter().flatten().copied().filter(|l| *l > 0 && *l < FAR).collect();
            let all: Vec<u32> = (0..vertices).collect();
            let paths = graph.paths(&all);
            let mean = f64::from(lengths.iter().sum::<u32>()) / lengths.len().max(1) as f64;
            prop_assert!((paths.mean - mean).abs() < 1e-9);
            prop_assert_eq!(paths.longest, lengths.iter().copied().max().unwrap_or(0));
            let mut groups = BTreeSet::new();
            for row in &far {
                groups.insert(row.iter().map(|l| *l < FAR).collect::<Vec<_>>());
            }
            let mut sizes: Vec<usize> = groups.iter().map(|g| g.iter().filter(|in_it| **in_it).count()).collect();
            sizes.sort_unstable_by(|a, b| b.cmp(a));
            prop_assert_eq!(graph.components(), sizes);
            let mut clustering = 0.0;
            for a in 0..n {
                let (mut pairs, mut closed) = (0, 0);
                for b in 0..n {
                    for c in 0..b {
                        if linked[a][b] && linked[a][c] {
                            pairs += 1;
                            closed += usize::from(linked[b][c]);
                        }
                    }
                }
                if pairs > 0 {
                    clustering += closed as f64 / pairs as f64;
                }
            }
            prop_assert!((graph.average_clustering() - clustering / n as f64).abs() < 1e-9);
            let degrees = graph.degrees();
            for (degree, count) in degrees.iter().enumerate() {
                let those = linked.iter().filter(|row| row.iter().filter(|on| **on).count() == degree);
                prop_assert_eq!(those.count(), *count);
            }
        }
    }

    #[test]
    fn a_triangle_with_a_tail() {
        let graph = Graph::new(4, &[(0, 1), (1, 2), (0, 2), (2, 3)]);
        // networkx: average_clustering 0.5833…, average_shortest_path_length 1.3333…
        assert!((graph.average_clustering() - 7.0 / 12.0).abs() < 1e-12);
        assert!((graph.paths(&[0, 1, 2, 3]).mean - 8.0 / 6.0).abs() < 1e-12);
        assert_eq!(graph.degrees(), [0, 1, 2, 1]);
    }
}
