//! What one rendering may come to. A template is hostile input: lists within lists would come out, or be gone through, without an end.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use handlebars::{
    Handlebars, Template,
    template::{Parameter, Subexpression, TemplateElement, TemplateMapping},
};
use serde_json::Value as Json;

use super::helpers;

/// Bytes that may come out; the work behind them is counted in the same coin.
const ALL: usize = 4 << 20;
/// What each element counts when it is gone through, and how much of all that it may look at counts one.
const ELEMENT: usize = 64;
const LOOKED_AT: usize = 64;

/// What is left of it, and what an element costs.
#[derive(Clone, Debug)]
pub struct Budget {
    left: Arc<AtomicUsize>,
    element: usize,
}

impl Budget {
    /// That of a template with this data: an expression may look at all of it.
    pub fn of(data: &Json) -> Budget {
        Budget { left: Arc::new(AtomicUsize::new(ALL)), element: ELEMENT + size(data) / LOOKED_AT }
    }

    /// Takes some away.
    pub fn spend(&self, amount: usize) -> io::Result<()> {
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(amount));
        let message = "it comes to more than 4 MiB, or goes through its lists too often";
        taken.map(drop).map_err(|_| io::Error::other(message))
    }

    /// Lets a template, and each block of it, spend when it is entered.
    pub fn count_passes(&self, handlebars: &mut Handlebars, template: &mut Template) {
        let budget = self.clone();
        // `pass ELEMENTS`, which stands first in each template.
        let pass = helpers::writing(move |helper, _| {
            let elements = helper.param(0).and_then(|param| param.value().as_u64()).unwrap_or(1);
            let cost = usize::try_from(elements).unwrap_or(ALL).saturating_mul(budget.element);
            Ok(budget.spend(cost)?)
        });
        handlebars.register_helper("pass", pass);
        if let Some(start) = template.mapping.first().cloned() {
            count(template, start);
        }
    }
}

/// `place` is that of the block.
fn count(template: &mut Template, place: TemplateMapping) {
    for (element, place) in template.elements.iter_mut().zip(&template.mapping) {
        if let TemplateElement::HelperBlock(block) = element {
            block.template.iter_mut().chain(&mut block.inverse).for_each(|inner| count(inner, place.clone()));
        }
    }
    let elements = Parameter::Literal(Json::from(template.elements.len() + 1));
    let pass = Subexpression::new(Parameter::Name("pass".to_owned()), vec![elements], HashMap::new());
    template.elements.insert(0, *pass.element);
    template.mapping.insert(0, place);
}

fn size(data: &Json) -> usize {
    match data {
        Json::String(text) => text.len(),
        Json::Array(items) => items.iter().map(|item| size(item) + 1).sum(),
        Json::Object(map) => map.iter().map(|(name, item)| name.len() + size(item) + 1).sum(),
        _ => 1,
    }
}

/// The text that comes out, within a budget.
pub struct Text {
    bytes: Vec<u8>,
    budget: Budget,
}

impl Text {
    /// Nothing yet.
    pub fn within(budget: &Budget) -> Text {
        Text { bytes: Vec::new(), budget: budget.clone() }
    }

    /// All of it.
    pub fn into_string(self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.budget.spend(bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
