//! Rules of one node.
