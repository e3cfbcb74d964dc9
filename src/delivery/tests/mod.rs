mod codec;
mod net;
mod rules;
