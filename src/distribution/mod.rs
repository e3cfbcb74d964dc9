//! Links with stock nodes: one connection per pair of nodes, as Distributed Erlang has it.

mod lanes;
mod peers;
