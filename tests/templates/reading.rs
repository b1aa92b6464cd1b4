//! How systemd reads a unit, written down after its own functions.

/// The directives of a unit as systemd's config_parse() splits them: lines, continued ones, sections, blanks at the ends.
pub fn directives(text: &str) -> Vec<(String, String, String)> {
    let (mut section, mut found, mut joined) = (String::new(), Vec::new(), String::new());
    for line in text.split(['\n', '\r', '\0']) {
        let line = line.trim_matches([' ', '\t']);
        if line.starts_with(['#', ';']) || (line.is_empty() && joined.is_empty()) {
            continue;
        }
        joined += line;
        if let Some(before) = joined.strip_suffix('\\') {
            joined = format!("{before} ");
            continue;
        }
        let line = std::mem::take(&mut joined);
        match line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(name) => section = name.to_owned(),
            None => {
                let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line:?} is no directive"));
                let ends = [' ', '\t'];
                found.push((section.clone(), key.trim_matches(ends).to_owned(), value.trim_matches(ends).to_owned()));
            }
        }
    }
    found
}

/// extract_first_word() with EXTRACT_UNQUOTE and EXTRACT_CUNESCAPE, again and again.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => {
                let take = |rest: &mut std::str::Chars, digits: usize, base| -> char {
                    let digits: String = rest.by_ref().take(digits).collect();
                    char::from_u32(u32::from_str_radix(&digits, base).unwrap_or_else(|_| panic!("{text:?}: an escape")))
                        .unwrap()
                };
                let read = match rest.next().unwrap_or_else(|| panic!("{text:?} ends in a backslash")) {
                    'x' => take(&mut rest, 2, 16),
                    'u' => take(&mut rest, 4, 16),
                    'n' => '\n',
                    't' => '\t',
                    same @ ('\\' | '"' | '\'') => same,
                    's' => ' ',
                    other => panic!("{text:?}: \\{other}"),
                };
                word.get_or_insert_default().push(read);
            }
            c if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ' ' | '\t' if quote.is_none() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "{text:?}: a quote that does not end");
    words.extend(word);
    words
}

/// unit_full_printf(): of specifiers only the one that stands for itself.
fn specifiers(text: &str) -> String {
    let plain = text.replace("%%", "");
    assert!(!plain.contains('%'), "{text:?} has a specifier");
    text.replace("%%", "%")
}

/// replace_env_argv(): of variables only the one that stands for a dollar.
pub fn variables(text: &str) -> String {
    assert!(!text.replace("$$", "").contains('$'), "{text:?} has a variable");
    text.replace("$$", "$")
}

/// The words of a directive.
pub fn read(key: &str, value: &str) -> Vec<String> {
    match key {
        "ExecStart" | "ExecStartPre" => {
            assert!(!value.split([' ', '\t']).any(|word| word == ";"), "{value:?} is two commands");
            words(value).iter().map(|word| variables(&specifiers(word))).collect()
        }
        "Environment" => words(value).iter().map(|word| specifiers(word)).collect(),
        "After" | "Slice" => value.split([' ', '\t']).map(specifiers).collect(),
        _ => vec![specifiers(value)],
    }
}
