//! Where an image comes from, as containers-transports(5) writes it.

use std::{fmt, str::FromStr};

/// placeholder until the store branch lands
#[derive(Clone, Debug)]
pub struct ImageSource(String);
impl FromStr for ImageSource {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<ImageSource, Self::Err> {
        Ok(ImageSource(text.to_owned()))
    }
}
impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
