//! Where a template's values land. Rendering leaves a mark for each; only when the whole text is there does one see what each stands
//! in, and writes it so that it is read back as it was.

use std::sync::{Arc, Mutex};

use handlebars::{
    Handlebars, Helper, HelperResult, Output, Path, RenderError, RenderErrorReason, Template,
    template::{HelperTemplate, Parameter, Subexpression, TemplateElement},
};
use serde_json::Value as Json;

use super::{budget::Budget, helpers};

/// Around the number of a mark: noncharacters, which no text that anybody writes has.
const OPEN: char = '\u{fdd0}';
const CLOSE: char = '\u{fdd1}';

/// What stands at a mark.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A value as text, and whether it is a number or a boolean.
    Value(String, bool),
    /// `{{json x}}`: a whole JSON value.
    Json(String),
    /// `{{args x}}`: words of their own.
    Words(Vec<String>),
    /// Text of ours, in the form of its place already.
    Ours(String),
}

/// A value, and the place in the template that it came from.
#[derive(Clone, Debug)]
pub struct Mark {
    /// The template's line, from 1.
    pub line: u64,
    /// And its column.
    pub column: u64,
    /// The value.
    pub what: What,
}

/// A stretch of a rendered text.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// The template's own.
    Literal(&'a str),
    /// A value.
    Mark(&'a Mark),
}

/// The marks of one rendering, in the order in which they were made.
#[derive(Clone, Debug, Default)]
pub struct Marks(Arc<Mutex<Vec<Mark>>>);

/// Whether a text has what marks are made of, or another character that systemd takes for none (its utf8_is_valid()).
pub fn has_noncharacter(text: &str) -> bool {
    text.chars().any(|c| ('\u{fdd0}'..='\u{fdef}').contains(&c) || (c as u32) & 0xfffe == 0xfffe)
}

/// Cuts a text at its marks.
pub fn pieces<'a>(text: &'a str, marks: &'a [Mark]) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    for (at, part) in text.split(OPEN).enumerate() {
        let rest = match part.split_once(CLOSE) {
            Some((number, rest)) if at > 0 => {
                pieces.extend(number.parse().ok().and_then(|number: usize| marks.get(number)).map(Piece::Mark));
                rest
            }
            _ => part,
        };
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest));
        }
    }
    pieces
}

impl Mark {
    /// How many letters that is.
    fn len(&self) -> usize {
        match &self.what {
            What::Value(text, _) | What::Json(text) | What::Ours(text) => text.len(),
            What::Words(words) => words.iter().map(|word| word.len() + 1).sum(),
        }
    }

    /// What is filled in, as one reads it.
    pub fn text(&self) -> String {
        match &self.what {
            What::Value(text, _) | What::Json(text) | What::Ours(text) => text.clone(),
            What::Words(words) => words.join(" "),
        }
    }
}

impl Marks {
    /// All that were made.
    pub fn all(&self) -> Vec<Mark> {
        self.0.lock().map(|marks| marks.clone()).unwrap_or_default()
    }

    fn add(&self, mark: Mark) -> String {
        let Ok(mut marks) = self.0.lock() else { return String::new() };
        marks.push(mark);
        format!("{OPEN}{}{CLOSE}", marks.len() - 1)
    }
}

/// The helper that each expression becomes: `here LINE COLUMN KIND VALUE`.
struct Here {
    marks: Marks,
    ours: Vec<(String, String)>,
    budget: Budget,
}

impl Here {
    fn write(&self, helper: &Helper<'_>, out: &mut dyn Output) -> HelperResult {
        let number = |at: usize| helper.param(at).and_then(|param| param.value().as_u64()).unwrap_or_default();
        let kind = helper.param(2).and_then(|param| param.value().as_str()).unwrap_or_default();
        let Some(given) = helper.param(3) else { return Err(needs_one(kind)) };
        if given.is_value_missing() {
            return Err(RenderErrorReason::MissingVariable(given.relative_path().cloned()).into());
        }
        let what = match kind {
            "ours" => {
                let text = self.ours.iter().find(|(name, _)| given.value() == name.as_str());
                What::Ours(text.map(|(_, text)| text.clone()).unwrap_or_default())
            }
            "json" => What::Json(given.value().to_string()),
            "args" => What::Words(words(given.value())?),
            _ => value(given.value())?,
        };
        let mark = Mark { line: number(0), column: number(1), what };
        self.budget.spend(mark.len())?;
        out.write(&self.marks.add(mark))?;
        Ok(())
    }
}

fn needs_one(helper: &str) -> RenderError {
    other(format!("{helper} takes one value"))
}

fn other(message: String) -> RenderError {
    RenderErrorReason::Other(message).into()
}

/// One value as text. A list is none: joined by commas or blanks it would be anybody's guess.
fn value(json: &Json) -> Result<What, RenderError> {
    match json {
        Json::String(text) => Ok(What::Value(text.clone(), false)),
        Json::Number(_) | Json::Bool(_) => Ok(What::Value(json.to_string(), true)),
        Json::Null => Err(other("it has no value; ask with {{#if}} first".to_owned())),
        Json::Array(_) => Err(other("it is a list; use {{args ...}}, {{join ... \",\"}} or {{#each ...}}".to_owned())),
        Json::Object(_) => Err(other("it is no single value; name one of its members".to_owned())),
    }
}

fn words(json: &Json) -> Result<Vec<String>, RenderError> {
    let word = |json: &Json| match value(json)? {
        What::Value(text, _) => Ok(text),
        _ => Err(other("a list of texts was expected".to_owned())),
    };
    match json {
        Json::Array(items) => items.iter().map(word).collect(),
        other => Ok(vec![word(other)?]),
    }
}

/// Lets every expression of a template leave a mark. `ours` are names that stand for text of ours.
pub fn prepare(
    handlebars: &mut Handlebars,
    template: &mut Template,
    ours: &[(&str, String)],
    budget: &Budget,
) -> Marks {
    let marks = Marks::default();
    let ours: Vec<(String, String)> = ours.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect();
    mark(template, &ours);
    let here = Here { marks: marks.clone(), ours, budget: budget.clone() };
    handlebars.register_helper("here", helpers::writing(move |helper, out| here.write(helper, out)));
    marks
}

fn mark(template: &mut Template, ours: &[(String, String)]) {
    for (element, place) in template.elements.iter_mut().zip(&template.mapping) {
        match element {
            TemplateElement::Expression(expression) => mark_expression(expression, (place.0, place.1), ours),
            TemplateElement::HelperBlock(block) => {
                if matches!(name_of(&block.name), "if" | "unless") {
                    block.params.iter_mut().for_each(insist);
                }
                let branches = block.template.iter_mut().chain(&mut block.inverse);
                branches.for_each(|inner| mark(inner, ours));
            }
            _ => {}
        }
    }
}

fn name_of(parameter: &Parameter) -> &str {
    match parameter {
        Parameter::Name(name) | Parameter::Path(Path::Relative((_, name)) | Path::Local((_, _, name))) => name,
        _ => "",
    }
}

fn mark_expression(expression: &mut HelperTemplate, place: (usize, usize), ours: &[(String, String)]) {
    let name = name_of(&expression.name).to_owned();
    let text = |text: &str| Parameter::Literal(Json::from(text));
    let alone = expression.params.is_empty() && expression.hash.is_empty();
    let (kind, value) = match name.as_str() {
        name if alone && ours.iter().any(|(known, _)| known == name) => ("ours", Some(text(name))),
        "json" | "args" | "text" => (name.as_str(), expression.params.first().cloned()),
        _ if alone => ("value", Some(expression.name.clone())),
        name => {
            let (params, hash) = (expression.params.clone(), expression.hash.clone());
            (
                "value",
                Some(Parameter::Subexpression(Subexpression::new(Parameter::Name(name.to_owned()), params, hash))),
            )
        }
    };
    let number = |number: usize| Parameter::Literal(Json::from(number));
    let mut params = vec![number(place.0), number(place.1), text(kind)];
    params.extend(value);
    expression.params = params;
    expression.hash.clear();
    expression.name = Parameter::Name("here".to_owned());
}

fn insist(param: &mut Parameter) {
    match param {
        Parameter::Path(_) => {
            let inner = vec![param.clone()];
            *param = Parameter::Subexpression(Subexpression::new(
                Parameter::Name("must".to_owned()),
                inner,
                std::collections::HashMap::new(),
            ));
        }
        Parameter::Subexpression(sub) => {
            if let TemplateElement::Expression(inner) = sub.element.as_mut() {
                inner.params.iter_mut().for_each(insist);
            }
        }
        _ => {}
    }
}
