//! Writes each value in the form of the place where it stands; what could not be read back there is refused.

use std::borrow::Cow;

use anyhow::Result;

use super::marks::{Mark, Piece, What, pieces};
use crate::model::{
    syntax::{self, Refusal},
    unit::UnitFile,
};

/// A refusal with the place of the value in its template.
pub fn tell(file: &str, refusal: &Refusal) -> anyhow::Error {
    let Mark { line, column, .. } = refusal.mark;
    anyhow::anyhow!("{file}, line {line}, column {column}: {}", refusal.why)
}

/// A unit: each directive has its own syntax.
pub fn unit(file: &str, text: &str, marks: &[Mark]) -> Result<String> {
    if marks.is_empty() {
        return Ok(text.to_owned());
    }
    let nowhere = |text: &str| match pieces(text, marks).into_iter().find_map(|piece| match piece {
        Piece::Mark(Mark { what: What::Ours(_), .. }) | Piece::Literal(_) => None,
        Piece::Mark(mark) => Some(mark),
    }) {
        None => Ok(()),
        Some(mark) => {
            let why = "a value stands here, where only the name of a section or a directive can".to_owned();
            Err(tell(file, &Refusal { mark, why }))
        }
    };
    let mut unit = UnitFile::parse(file, text)?;
    unit.rewrite(
        |name| nowhere(name),
        |key, value| syntax::fill(key, &pieces(value, marks)).map_err(|refusal| tell(file, &refusal)),
        |comment| plain(comment, marks),
    )?;
    Ok(unit.to_text())
}

/// JSON: inside a string the letters of the value, outside a number, a boolean or a whole JSON value.
pub fn json<'a>(text: &'a str, marks: &'a [Mark]) -> Result<String, Refusal<'a>> {
    let (mut out, mut inside, mut escape) = (String::new(), false, 0);
    for piece in pieces(text, marks) {
        let mark = match piece {
            Piece::Literal(text) => {
                for c in text.chars() {
                    match c {
                        _ if escape > 0 => escape = if escape == 1 && c == 'u' { 5 } else { escape } - 1,
                        '\\' if inside => escape = 1,
                        '"' => inside = !inside,
                        _ => {}
                    }
                }
                out.push_str(text);
                continue;
            }
            Piece::Mark(mark) => mark,
        };
        let refuse = |why: &str| Err(Refusal { mark, why: why.to_owned() });
        if escape > 0 {
            return refuse("half an escape stands before it");
        }
        match &mark.what {
            What::Value(text, _) if inside => out.push_str(&json_inside(text)),
            What::Ours(text) if inside => out.push_str(&json_inside(text)),
            What::Value(text, true) => out.push_str(text),
            What::Json(text) if !inside => out.push_str(text),
            What::Value(..) | What::Ours(_) => return refuse("put quotes around it, or write {{json ...}}"),
            What::Json(_) => return refuse("{{json ...}} is a whole value; take the quotes around it away"),
            What::Words(_) => return refuse("{{args ...}} is nothing for JSON; write {{json ...}}"),
        }
    }
    Ok(out)
}

fn json_inside(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// Text that nothing has to be escaped in.
pub fn plain(text: &str, marks: &[Mark]) -> String {
    let text_of = |piece| match piece {
        Piece::Literal(text) => Cow::Borrowed(text),
        Piece::Mark(mark) => Cow::Owned(mark.text()),
    };
    pieces(text, marks).into_iter().map(text_of).collect()
}

/// Lines of tmpfiles.d(5) or sysusers.d(5). Fields are words; only what follows the sixth of tmpfiles.d, and the comment of
/// sysusers.d, may hold anything.
pub fn lines<'a>(text: &'a str, marks: &'a [Mark], tmpfiles: bool) -> Result<String, Refusal<'a>> {
    let filled = text.split('\n').map(|line| match line.trim_start().starts_with('#') {
        true => Ok(plain(line, marks)),
        false => fields(line, marks, tmpfiles),
    });
    filled.collect::<Result<Vec<_>, _>>().map(|lines| lines.join("\n"))
}

fn fields<'a>(line: &'a str, marks: &'a [Mark], tmpfiles: bool) -> Result<String, Refusal<'a>> {
    let (mut out, mut literal) = (String::new(), "");
    for piece in pieces(line, marks) {
        let mark = match piece {
            Piece::Literal(text) => {
                literal = text;
                out.push_str(text);
                continue;
            }
            Piece::Mark(mark) => mark,
        };
        let refuse = |why: String| Err(Refusal { mark, why });
        if let Some(why) = syntax::swallows(literal, false) {
            return refuse(why.to_owned());
        }
        literal = "";
        let before = fields_before(&out);
        let kind = out.trim_start().chars().next().unwrap_or_default();
        let text = mark.text();
        let plain = !text.is_empty() && text.chars().all(|c| syntax::is_plain(c) || c == '~');
        match (&mark.what, before) {
            (What::Words(_) | What::Json(_), _) => return refuse("a field takes one value".to_owned()),
            // The rest of the line; of these kinds with C escapes.
            (_, 6..) if tmpfiles && matches!(kind, 'f' | 'F' | 'w' | 'L' | 'C') => {
                out.push_str(&syntax::escaped(&text, false));
            }
            // Words without C escapes: there a backslash takes the next letter as it is.
            (_, 3) if !tmpfiles && !text.contains([':', '%']) && !text.is_empty() => {
                for c in text.chars() {
                    out.extend(matches!(c, ' ' | '"' | '\'' | '\\').then_some('\\'));
                    out.push(c);
                }
            }
            _ if plain => out.push_str(&text),
            _ => {
                return refuse(format!(
                    "{text:?} may be read otherwise there than it is meant; narrow the value with a \"pattern\""
                ));
            }
        }
    }
    Ok(out)
}

/// How many fields of the line are complete.
fn fields_before(text: &str) -> usize {
    let (mut fields, mut quote, mut escape, mut inside) = (0, None, false, false);
    for c in text.chars() {
        match c {
            _ if escape => escape = false,
            '\\' => (escape, inside) = (true, true),
            _ if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => (quote, inside) = (Some(c), true),
            ' ' | '\t' if quote.is_none() => {
                fields += usize::from(inside);
                inside = false;
            }
            _ => inside = true,
        }
    }
    fields
}
