//! Every effect on the machine, one subject a file.
