//! Rules one by one, a model of many nodes that crash, part and come back, and large graphs.

mod chaos;
mod large;
mod net;
mod rules;
mod xbot;
