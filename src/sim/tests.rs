//! The simulator with the smallest protocols.
