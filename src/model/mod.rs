//! What sysctr knows, without effects: names, references, manifests, values, rendered text and plans.

pub mod digest;
pub mod name;
pub mod reference;
