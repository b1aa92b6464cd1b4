//! Text that an image brought, on its way to a terminal or a log.

/// The same on one line, with nothing in it that would steer a terminal or turn the direction in which people read it.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || turns(c) { ' ' } else { c }).collect()
}

/// Unicode's marks, embeddings, overrides and isolates of direction ([UAX 9](https://www.unicode.org/reports/tr9/)), and its own two
/// line breaks.
fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_any_script_stay_and_what_steers_goes() {
        assert_eq!(one_line("größe 漢字 עברית"), "größe 漢字 עברית");
        assert_eq!(one_line("a\nb\t\u{1b}[31m\u{9b}\u{202e}c\u{2069}\u{2028}d"), "a b  [31m  c  d");
    }
}
