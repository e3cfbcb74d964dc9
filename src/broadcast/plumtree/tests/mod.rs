//! Tests of Plumtree: rules of one node, and whole networks in virtual time.

mod harness;
mod hostile;
mod networks;
mod rules;
