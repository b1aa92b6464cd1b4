//! What sysctr knows, without effects: names, references, manifests, values, rendered text and plans.

pub mod digest;
pub mod fault;
pub mod manifest;
pub mod name;
pub mod reference;
pub mod values;
