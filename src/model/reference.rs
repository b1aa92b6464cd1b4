//! Where an image comes from, as containers-transports(5) writes it.
