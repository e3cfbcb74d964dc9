//! The NIF that puts a Partisan node inside a BEAM node.
