//! Handlebars templates that cannot go wrong quietly: gaps are errors, and a value stays inside the place where it stands.
//!
//! `{{x}}` is written so that whoever reads the file reads `x`: one argument of a command, the text of a Description=, the inside of a
//! JSON string. Where that cannot be, it is refused with its place. Beside it there are
//!
//! | helper | is |
//! | --- | --- |
//! | `{{args LIST}}` | each of the list as a word of its own |
//! | `{{json X}}` | a whole JSON value |
//! | `{{join LIST ","}}` | one text |
//! | `{{brace}}`, `{{backslash}}` | `{` and `\`, where two braces, or a backslash before them, are meant |
//! | `{{unitpath PATH}}` | a path as it stands in the name of a unit, as systemd-escape --path makes it |
//! | `{{lookup LIST 0}}`, `{{len LIST}}` | one of a list, and how many there are |
//! | `{{#if}}`, `{{#unless}}`, `{{#each}}`, `{{#with}}`, `eq`, `ne`, `gt`, `gte`, `lt`, `lte`, `and`, `or`, `not` | conditions and lists |
//!
//! `{{{x}}}` and partials are refused, and so is what comes to more than 4 MiB.

use anyhow::{Result, anyhow, bail, ensure};
use handlebars::{
    Handlebars, RenderErrorReason, Template,
    template::{HelperTemplate, TemplateElement},
};
use serde_json::Value as Json;

mod budget;
mod fill;
mod helpers;
mod marks;

use budget::{Budget, Text};
pub use marks::{Mark, Piece, What};

/// The kind of file that a template makes; it decides how `{{x}}` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// systemd.syntax(7).
    Unit,
    /// config.json.
    Json,
    /// tmpfiles.d(5).
    Tmpfiles,
    /// sysusers.d(5).
    Sysusers,
    /// One argument or variable: nothing to escape.
    Plain,
}

/// Renders `text`, called `file` in errors, with `data`. `raw` are names that stand for text of ours, not escaped.
pub fn render(kind: Kind, file: &str, text: &str, data: &Json, raw: &[(&str, String)]) -> Result<String> {
    no_control_characters(file, data)?;
    not_too_deep(file, text)?;
    ensure!(!marks::has_noncharacter(text), "{file}: it holds characters that are none");
    let mut template = Template::compile(text).map_err(|error| {
        let place = error.pos().map(|(line, column)| format!(", line {line}, column {column}")).unwrap_or_default();
        anyhow!("{file}{place}: {}", error.reason().to_string().lines().next().unwrap_or("not a template"))
    })?;
    refuse_unescaped(file, &template)?;

    let mut handlebars = Handlebars::new();
    handlebars.set_strict_mode(true);
    handlebars.unregister_helper("log");
    handlebars.register_escape_fn(str::to_owned);
    helpers::register(&mut handlebars);
    let budget = Budget::of(data);
    let braces = [("brace", "{".to_owned()), ("backslash", "\\".to_owned())];
    let marks = marks::prepare(&mut handlebars, &mut template, &[raw, &braces].concat(), &budget);
    budget.count_passes(&mut handlebars, &mut template);
    handlebars.register_template(file, template);
    let mut out = Text::within(&budget);
    handlebars.render_to_write(file, data, &mut out).map_err(|error| {
        let line = error.line_no.map(|line| format!(", line {line}")).unwrap_or_default();
        let column = error.column_no.map(|column| format!(", column {column}")).unwrap_or_default();
        match error.reason() {
            RenderErrorReason::MissingVariable(Some(path)) => {
                anyhow!("{file}{line}{column}: nothing is called {path:?}")
            }
            RenderErrorReason::Other(words) => anyhow!("{file}{line}{column}: {words}"),
            RenderErrorReason::IOError(spent) => anyhow!("{file}{line}{column}: {spent}"),
            reason => anyhow!("{file}{line}{column}: {reason}"),
        }
    })?;
    let (text, marks) = (out.into_string(), marks.all());
    let tell = |refusal| fill::tell(file, &refusal);
    match kind {
        Kind::Unit => fill::unit(file, &text, &marks),
        Kind::Json => fill::json(&text, &marks).map_err(tell),
        Kind::Tmpfiles => fill::lines(&text, &marks, true).map_err(tell),
        Kind::Sysusers => fill::lines(&text, &marks, false).map_err(tell),
        Kind::Plain => Ok(fill::plain(&text, &marks)),
    }
}

/// A template that makes just this text.
pub fn verbatim(text: &str) -> String {
    let special = |c: char| matches!(c, '{' | '\\');
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(special) {
        let (before, run) = rest.split_at(at);
        let (run, after) = run.split_at(run.find(|c| !special(c)).unwrap_or(run.len()));
        out.push_str(before);
        match run.contains("{{") {
            true => run.chars().for_each(|c| out.push_str(if c == '{' { "{{brace}}" } else { "{{backslash}}" })),
            false => out.push_str(run),
        }
        rest = after;
    }
    out + rest
}

/// Blocks, and brackets in one expression, that no template needs; reading and rendering recurse with them.
const MAX_BLOCKS: usize = 200;
const MAX_BRACKETS: usize = 8;

/// Templates are hostile input too: what nests without end would end the stack.
fn not_too_deep(file: &str, text: &str) -> Result<()> {
    let mut blocks = 0;
    for expression in text.split("{{").skip(1) {
        let inside = expression.split("}}").next().unwrap_or_default();
        let word = inside.trim_start_matches(['~', ' ', '\t', '\n']);
        blocks += usize::from(word.starts_with(['#', '^']) || word.starts_with("else"));
        let brackets = inside.bytes().filter(|b| matches!(b, b'(' | b'[' | b'{')).count();
        ensure!(brackets <= MAX_BRACKETS, "{file}: an expression with more than {MAX_BRACKETS} brackets");
    }
    ensure!(blocks <= MAX_BLOCKS, "{file}: more than {MAX_BLOCKS} blocks");
    Ok(())
}

/// A newline in a value would be a new line of the file: nothing that is filled in may have one.
fn no_control_characters(file: &str, data: &Json) -> Result<()> {
    match data {
        Json::String(text) => {
            ensure!(!text.chars().any(char::is_control), "{file}: {text:?} holds control characters");
            ensure!(!marks::has_noncharacter(text), "{file}: {text:?} holds characters that are none");
        }
        Json::Array(items) => items.iter().try_for_each(|item| no_control_characters(file, item))?,
        Json::Object(map) => map.values().try_for_each(|item| no_control_characters(file, item))?,
        _ => {}
    }
    Ok(())
}

fn refuse_unescaped(file: &str, template: &Template) -> Result<()> {
    for (element, place) in template.elements.iter().zip(&template.mapping) {
        match element {
            TemplateElement::HtmlExpression(_) => {
                bail!("{file}, line {}, column {}: {{{{{{...}}}}}} is refused, write {{{{...}}}}", place.0, place.1)
            }
            TemplateElement::HelperBlock(block) => {
                branches(block).try_for_each(|inner| refuse_unescaped(file, inner))?
            }
            TemplateElement::RawString(_) | TemplateElement::Expression(_) | TemplateElement::Comment(_) => {}
            _ => bail!("{file}, line {}, column {}: partials and decorators are not available", place.0, place.1),
        }
    }
    Ok(())
}

/// What stands in a block and in its `{{else}}`.
fn branches(block: &HelperTemplate) -> impl Iterator<Item = &Template> {
    block.template.iter().chain(&block.inverse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn unit(text: &str, data: Json) -> Result<String> {
        render(Kind::Unit, "service.hbs", text, &data, &[("exec_start", "/run it".to_owned())])
    }

    #[test]
    fn a_value_stays_one_argument_of_a_unit() {
        let text =
            unit("[Service]\nExecStart={{exec_start}} --x={{x}}", json!({"x": "a b%n$HOME\"'\\;"})).expect("text");
        assert_eq!(text, "[Service]\nExecStart=/run it --x=a\\x20b%%n$$HOME\\x22\\x27\\x5c\\x3b\n");
    }

    #[test]
    fn a_value_stays_inside_a_json_string() {
        let text =
            render(Kind::Json, "c", r#"{"a": "{{x}}", "b": {{json x}}}"#, &json!({"x": "\"\\"}), &[]).expect("text");
        assert_eq!(serde_json::from_str::<Json>(&text).expect("JSON"), json!({"a": "\"\\", "b": "\"\\"}));
    }

    #[test]
    fn gaps_newlines_and_unescaped_values_are_refused_with_their_place() {
        for (text, data, expected) in [
            ("a\n{{gone}}", json!({}), "service.hbs, line 2, column"),
            ("{{#if x}}{{values.gone}}{{/if}}", json!({"x": true, "values": {}}), "gone"),
            ("{{x}}", json!({"x": "a\nExecStart=/bin/sh"}), "control characters"),
            ("{{{x}}}", json!({"x": "a"}), "is refused"),
            ("{{#if x}}{{{x}}}{{/if}}", json!({"x": "a"}), "is refused"),
            ("{{&x}}", json!({"x": "a"}), "is refused"),
            ("{{> other}}", json!({}), "partials"),
            ("{{#if x}}", json!({"x": 1}), "service.hbs"),
            ("{{#if (eq x gone)}}{{/if}}", json!({"x": 1}), "gone"),
        ] {
            let message = unit(text, data).expect_err(text).to_string();
            assert!(message.contains(expected), "{text:?}: {message:?} does not say {expected:?}");
        }
    }
    #[test]
    fn lists_within_lists_come_to_an_end() {
        let list: Vec<String> = (0..1000).map(|number| format!("unit-{number}.service")).collect();
        let data = json!({"after": list});
        let nested =
            |inside: &str| format!("# a\n{}{inside}{}", "{{#each @root.after}}".repeat(6), "{{/each}}".repeat(6));
        let larger = "x".repeat(1000);
        for inside in ["", "{{this}}", larger.as_str(), "{{#if (eq this @root.after)}}{{/if}}", "{{json @root.after}}"]
        {
            let begun = std::time::Instant::now();
            let message = unit(&nested(inside), data.clone()).expect_err("without an end").to_string();
            assert!(message.starts_with("service.hbs, line 2, column ") && message.contains("4 MiB"), "{message}");
            assert!(begun.elapsed().as_secs() < 20, "{inside:?} took {:?}", begun.elapsed());
        }
        let text = "[Unit]\n{{#each after}}After={{this}}\n{{#if @last}}# {{#each @root.after}}{{this}}{{/each}}{{/if}}{{/each}}";
        assert_eq!(unit(text, data).expect("a long unit").lines().count(), 1002);
    }
}
