//! Handlebars templates that cannot go wrong quietly: gaps are errors, and a value stays inside the place where it stands.
//!
//! `{{x}}` is escaped for the kind of file; `{{text x}}` stands for free text in a unit (a Description=), `{{json x}}` for a whole JSON
//! value. `{{{x}}}` and partials are refused.

use anyhow::{Result, anyhow, bail, ensure};
use handlebars::{
    Handlebars, Helper, HelperDef, HelperResult, RenderErrorReason, Template,
    template::{HelperTemplate, TemplateElement},
};
use serde_json::Value as Json;

/// The kind of file that a template makes; it decides how `{{x}}` is escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// systemd.syntax(7), systemd.service(5): an argument of an Exec line.
    Unit,
    /// The inside of a JSON string.
    Json,
    /// tmpfiles.d(5) and sysusers.d(5): a field.
    Fields,
    /// One argument or variable: nothing to escape.
    Plain,
}

/// Renders `text`, called `file` in errors, with `data`. `raw` are names that stand for text of ours, not escaped.
pub fn render(kind: Kind, file: &str, text: &str, data: &Json, raw: &[(&str, String)]) -> Result<String> {
    no_control_characters(file, data)?;
    not_too_deep(file, text)?;
    let template = Template::compile(text).map_err(|error| {
        let place = error.pos().map(|(line, column)| format!(", line {line}, column {column}")).unwrap_or_default();
        anyhow!("{file}{place}: {}", error.reason().to_string().lines().next().unwrap_or("not a template"))
    })?;
    refuse_unescaped(file, &template)?;

    let mut handlebars = Handlebars::new();
    handlebars.set_strict_mode(true);
    handlebars.register_escape_fn(match kind {
        Kind::Unit => unit_argument,
        Kind::Json => json_inside,
        Kind::Fields => field,
        Kind::Plain => str::to_owned,
    });
    handlebars.register_helper("text", Box::new(Written(|helper: &Helper<'_>| first(helper).map(unit_text))));
    handlebars.register_helper("json", Box::new(Written(|helper: &Helper<'_>| first(helper).map(Json::to_string))));
    for (name, value) in raw {
        let value = value.clone();
        handlebars.register_helper(name, Box::new(Written(move |_: &Helper<'_>| Ok(value.clone()))));
    }
    handlebars.register_template(file, template);
    handlebars.render(file, data).map_err(|error| {
        let line = error.line_no.map(|line| format!(", line {line}")).unwrap_or_default();
        let column = error.column_no.map(|column| format!(", column {column}")).unwrap_or_default();
        match error.reason() {
            RenderErrorReason::MissingVariable(Some(path)) => {
                anyhow!("{file}{line}{column}: nothing is called {path:?}")
            }
            reason => anyhow!("{file}{line}{column}: {reason}"),
        }
    })
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
        Json::String(text) => ensure!(!text.chars().any(char::is_control), "{file}: {text:?} holds control characters"),
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

fn branches(block: &HelperTemplate) -> impl Iterator<Item = &Template> {
    block.template.iter().chain(&block.inverse)
}

/// Escapes one argument so that it stays one, inside quotes and outside (systemd.service(5), "Command lines").
pub fn unit_argument(text: &str) -> String {
    if text.is_empty() {
        return "\"\"".to_owned();
    }
    escape(text, |c| match c {
        '$' => Some("$$".to_owned()),
        _ => None,
    })
}

fn field(text: &str) -> String {
    if text.is_empty() { "\"\"".to_owned() } else { escape(text, |_| None) }
}

fn escape(text: &str, special: impl Fn(char) -> Option<String>) -> String {
    text.chars()
        .map(|c| match c {
            '%' => "%%".to_owned(),
            ' ' | '"' | '\'' | '\\' | ';' | '#' => format!("\\x{:02x}", c as u32),
            _ => special(c).unwrap_or_else(|| c.to_string()),
        })
        .collect()
}

/// Free text of a unit: only specifiers mean something there.
pub fn unit_free_text(text: &str) -> String {
    text.replace('%', "%%").replace('\\', "\\\\")
}

fn json_inside(text: &str) -> String {
    let quoted = Json::String(text.to_owned()).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// A helper whose text is written as it is, not escaped: it is ours, or in the form of its place already.
struct Written<F>(F);

impl<F: Fn(&Helper<'_>) -> Result<String, RenderErrorReason> + Send + Sync> HelperDef for Written<F> {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc handlebars::Context,
        _: &mut handlebars::RenderContext<'reg, 'rc>,
        out: &mut dyn handlebars::Output,
    ) -> HelperResult {
        out.write(&(self.0)(helper)?)?;
        Ok(())
    }
}

/// The one parameter of a helper.
fn first<'a>(helper: &'a Helper<'_>) -> Result<&'a Json, RenderErrorReason> {
    Ok(helper.param(0).ok_or(RenderErrorReason::ParamNotFoundForIndex("a value", 0))?.value())
}

fn unit_text(value: &Json) -> String {
    unit_free_text(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))
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
        let text = unit("ExecStart={{exec_start}} --x={{x}}", json!({"x": "a b%n$HOME\"'\\;"})).expect("text");
        assert_eq!(text, r"ExecStart=/run it --x=a\x20b%%n$$HOME\x22\x27\x5c\x3b");
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
        ] {
            let message = unit(text, data).expect_err(text).to_string();
            assert!(message.contains(expected), "{text:?}: {message:?} does not say {expected:?}");
        }
    }
}
