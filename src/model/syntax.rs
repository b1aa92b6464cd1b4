//! How systemd reads the value of a directive (systemd.syntax(7) and the manual page of each directive; what they leave open was tried
//! with systemd 252 and 257), and how a value is written there so that it is read back as it was.
//!
//! | syntax | is read as | a value in it |
//! | --- | --- | --- |
//! | command | words, quotes, C escapes, `%`, `$` | escaped, stays one word |
//! | quoted | the same without `$` | escaped, stays one word |
//! | text | the rest of the line, `%` | as it is; blanks at its ends are refused |
//! | names | names of units | only what a unit's name may have |
//! | amount | a number with a unit or `%` | only that |
//! | plain | as each directive likes | only letters, digits and `_.:/@+,=-` |

use super::template::{Mark, Piece, What};

/// How a directive's value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// Command lines (systemd.service(5)).
    Command,
    /// Words with quotes and C escapes.
    Quoted,
    /// The rest of the line.
    Text,
    /// Names of units.
    Names,
    /// A number.
    Amount,
    /// Nothing that needs escaping is safe here.
    Plain,
}

const QUOTED: &str = "Environment LogExtraFields";
const TEXT: &str = "Description SyslogIdentifier WorkingDirectory PIDFile EnvironmentFile ListenStream ListenDatagram \
    ListenSequentialPacket ListenFIFO PathExists PathChanged PathModified DirectoryNotEmpty OnCalendar LoadCredential LoadCredentialEncrypted";
const NAMES: &str = "After Before Requires Wants BindsTo Requisite Upholds PartOf Conflicts OnFailure OnSuccess PropagatesReloadTo \
    ReloadPropagatedFrom JoinsNamespaceOf WantedBy RequiredBy UpheldBy Alias Also Service Unit Slice Sockets DefaultInstance";
const AMOUNT: &str = "CPUQuota MemoryMin MemoryLow MemoryHigh MemoryMax MemorySwapMax TasksMax";

/// How this directive is read.
pub fn of(key: &str) -> Syntax {
    let listed = |names: &str| names.split_ascii_whitespace().any(|name| name == key);
    match key {
        key if key.starts_with("Exec") => Syntax::Command,
        _ if listed(QUOTED) => Syntax::Quoted,
        _ if listed(TEXT) || is_condition_of_a_path(key) => Syntax::Text,
        _ if listed(NAMES) => Syntax::Names,
        _ if listed(AMOUNT) => Syntax::Amount,
        _ => Syntax::Plain,
    }
}

fn is_condition_of_a_path(key: &str) -> bool {
    let rest = key.strip_prefix("Condition").or(key.strip_prefix("Assert"));
    rest.is_some_and(|rest| ["Path", "File", "Directory"].iter().any(|start| rest.starts_with(start)))
}

/// Why a value cannot stand where it does.
#[derive(Debug)]
pub struct Refusal<'a> {
    /// The value.
    pub mark: &'a Mark,
    /// What is wrong.
    pub why: String,
}

/// The value of a directive with everything filled in.
pub fn fill<'a>(key: &str, pieces: &[Piece<'a>]) -> Result<String, Refusal<'a>> {
    match of(key) {
        Syntax::Command => words(pieces, true),
        Syntax::Quoted => words(pieces, false),
        Syntax::Text => text(key, pieces),
        Syntax::Names => plainly(key, pieces, |c| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c)),
        Syntax::Amount => plainly(key, pieces, |c| c.is_ascii_alphanumeric() || ".%".contains(c)),
        Syntax::Plain => plainly(key, pieces, is_plain),
    }
}

/// One value alone as that of a directive; none where it could not be read back.
pub fn value(key: &str, text: &str) -> Option<String> {
    let mark = Mark { line: 0, column: 0, what: What::Value(text.to_owned(), false) };
    fill(key, &[Piece::Mark(&mark)]).ok()
}

/// What means the same to every reader.
pub fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.:/@+,=-".contains(c)
}

/// Escapes a text so that it stays in its word, inside quotes and outside.
pub fn escaped(text: &str, dollar: bool) -> String {
    let escape = |c: char| match c {
        '%' => "%%".to_owned(),
        '$' if dollar => "$$".to_owned(),
        ' ' | '"' | '\'' | '\\' | ';' | '#' => format!("\\x{:02x}", c as u32),
        _ => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// Whether what stands before a value would swallow the beginning of it: half an escape, a `%`, a `$`.
pub fn swallows(before: &str, dollar: bool) -> Option<&'static str> {
    let trailing = |c: char| before.chars().rev().take_while(|other| *other == c).count() % 2 == 1;
    if trailing('%') {
        return Some("a '%' stands before it, which would make a specifier of it; write %%");
    }
    if dollar && (trailing('$') || before.rfind("${").is_some_and(|at| !before[at..].contains('}'))) {
        return Some("a '$' stands before it, which would make a variable of it; write $$");
    }
    let mut rest = before;
    while let Some(at) = rest.find('\\') {
        let escape = &rest[at + 1..];
        let length = match escape.chars().next() {
            None => return Some("a backslash stands before it"),
            Some('x') => 3,
            Some('u') => 5,
            Some('U') => 9,
            Some('0'..='7') => 3,
            Some(c) => c.len_utf8(),
        };
        if escape.len() < length {
            return Some("half an escape stands before it");
        }
        rest = escape.get(length..).unwrap_or_default();
    }
    None
}

const BLANK: [char; 2] = [' ', '\t'];

fn words<'a>(pieces: &[Piece<'a>], command: bool) -> Result<String, Refusal<'a>> {
    let mut out = String::new();
    let (mut quote, mut escape, mut literal) = (None, false, String::new());
    // Behind these no variable is looked for.
    let prefix = |c: char| "@-:+!|".contains(c);
    let verbatim = matches!(pieces.first(), Some(Piece::Literal(text)) if text.chars().take_while(|c| prefix(*c)).any(|c| c == ':'));
    let dollar = command && !verbatim;
    let ends_here = |next: Option<&Piece>| match next {
        None => true,
        Some(Piece::Literal(text)) => text.starts_with(BLANK),
        Some(Piece::Mark(_)) => false,
    };
    let is_empty =
        |piece: &Piece| matches!(piece, Piece::Mark(Mark { what: What::Value(text, _), .. }) if text.is_empty());
    let mut at = 0;
    while let Some(piece) = pieces.get(at) {
        at += 1;
        let mark = match piece {
            Piece::Literal(text) => {
                for c in text.chars() {
                    match c {
                        _ if escape => escape = false,
                        '\\' => escape = true,
                        '"' | '\'' if quote.is_none() => quote = Some(c),
                        _ if quote == Some(c) => quote = None,
                        _ => {}
                    }
                }
                literal.push_str(text);
                out.push_str(text);
                continue;
            }
            Piece::Mark(mark) => *mark,
        };
        let refuse = |why: &str| Err(Refusal { mark, why: why.to_owned() });
        if let Some(why) = swallows(&literal, dollar) {
            return refuse(why);
        }
        literal.clear();
        let begins = quote.is_none() && (out.is_empty() || out.ends_with(BLANK));
        match &mark.what {
            What::Ours(text) => out.push_str(text),
            What::Json(_) => return refuse("a JSON value is nothing for a unit"),
            What::Words(_) if !begins || !ends_here(pieces.get(at)) => {
                return refuse("{{args ...}} stands for words of their own; put blanks around it, and no quotes");
            }
            What::Words(all) => {
                if command && is_program(&out) {
                    return refuse("the program of a command is written out");
                }
                let each = |word: &String| if word.is_empty() { "\"\"".to_owned() } else { escaped(word, dollar) };
                out.push_str(&all.iter().map(each).collect::<Vec<_>>().join(" "));
            }
            What::Value(text, _) if command && is_program(&out) => {
                if text.is_empty() || !text.chars().all(is_plain) || (begins && !text.starts_with('/')) {
                    return refuse("the program of a command is an absolute path of plain letters");
                }
                out.push_str(text);
            }
            What::Value(text, _) if text.is_empty() => {
                // Alone it would be no word at all.
                let run = pieces[at..].iter().take_while(|piece| is_empty(piece)).count();
                if begins && ends_here(pieces.get(at + run)) {
                    out.push_str("\"\"");
                    at += run;
                }
            }
            What::Value(text, _) => out.push_str(&escaped(text, dollar)),
        }
    }
    Ok(out)
}

/// Whether what comes next is the program of a command line, or part of it.
fn is_program(before: &str) -> bool {
    let complete = before.rfind(BLANK).map_or("", |at| &before[..at]);
    complete.split(BLANK).rfind(|word| !word.is_empty()).is_none_or(|word| word == ";")
}

/// Literals as they are, ours as well, and each value as `write` says, which is told what stands before it. Gives the last value too.
fn each<'a>(
    pieces: &[Piece<'a>],
    mut write: impl FnMut(&mut String, &str, &'a What) -> Result<(), String>,
) -> Result<(String, Option<&'a Mark>), Refusal<'a>> {
    let (mut out, mut before, mut last) = (String::new(), "", None);
    for piece in pieces {
        let mark = match piece {
            Piece::Literal(text) => {
                before = text;
                out.push_str(text);
                continue;
            }
            Piece::Mark(mark) => *mark,
        };
        last = Some(mark);
        match &mark.what {
            What::Ours(text) => out.push_str(text),
            what => write(&mut out, before, what).map_err(|why| Refusal { mark, why })?,
        }
        before = "";
    }
    Ok((out, last))
}

fn text<'a>(key: &str, pieces: &[Piece<'a>]) -> Result<String, Refusal<'a>> {
    let free = matches!(key, "Description" | "SyslogIdentifier");
    let (out, last) = each(pieces, |out, before, what| {
        let What::Value(text, _) = what else { return Err(format!("{key}= takes one text; use {{{{join ...}}}}")) };
        if before.chars().rev().take_while(|c| *c == '%').count() % 2 == 1 {
            return Err("a '%' stands before it, which would make a specifier of it; write %%".to_owned());
        }
        if !free && out.is_empty() && text.starts_with(['-', '~', '!', '@', '|', '+', ':', '"', '\'']) {
            return Err(format!("{key}= would read the first letter of {text:?} as a sign of its own"));
        }
        out.push_str(&text.replace('%', "%%"));
        Ok(())
    })?;
    let Some(mark) = last else { return Ok(out) };
    let refuse = |why: String| Err(Refusal { mark, why });
    match out.as_str() {
        "" => refuse(format!("{key}= would be empty; put {{{{#if ...}}}} around the line")),
        text if text.starts_with(BLANK) || text.ends_with(BLANK) => {
            refuse(format!("{key}= would lose the blanks at the ends of {text:?}"))
        }
        text if text.ends_with('\\') => {
            refuse(format!("{key}= would end in a backslash, which swallows the next line"))
        }
        _ => Ok(out),
    }
}

fn plainly<'a>(key: &str, pieces: &[Piece<'a>], good: impl Fn(char) -> bool) -> Result<String, Refusal<'a>> {
    let (out, last) = each(pieces, |out, before, what| {
        if let Some(why) = swallows(before, false) {
            return Err(why.to_owned());
        }
        let words = match what {
            What::Value(text, _) => std::slice::from_ref(text),
            What::Words(words) => words.as_slice(),
            What::Json(_) | What::Ours(_) => return Err("a JSON value is nothing for a unit".to_owned()),
        };
        if let Some(bad) = words.iter().find(|word| word.is_empty() || !word.chars().all(&good)) {
            let what = if bad.is_empty() { "nothing".to_owned() } else { format!("{bad:?}") };
            return Err(format!(
                "{key}= may read {what} otherwise than it is meant; narrow the value with a \"pattern\""
            ));
        }
        out.push_str(&words.join(" "));
        Ok(())
    })?;
    match last {
        Some(mark) if out.ends_with('\\') => {
            Err(Refusal { mark, why: format!("{key}= would end in a backslash, which swallows the next line") })
        }
        _ => Ok(out),
    }
}
