//! What the micro-benchmarks and the instruction counts work on: typical messages, and the two
//! halves of a connection with nothing around them.

pub mod rig;
pub mod terms;
