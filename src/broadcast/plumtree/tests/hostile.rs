//! What a hostile neighbour can do.
