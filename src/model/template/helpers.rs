//! What a helper of templates is to handlebars, and those that make one value of their parameters.

use handlebars::{
    Context, Handlebars, Helper, HelperDef, HelperResult, Output, RenderContext, RenderError, RenderErrorReason,
    ScopedJson,
};
use serde_json::Value as Json;

/// All of them. `must VALUE` stands in conditions: a name that does not exist is no "no".
pub fn register(handlebars: &mut Handlebars) {
    handlebars.register_helper("join", Box::new(Value(join)));
    handlebars.register_helper("unitpath", Box::new(Value(unit_path)));
    handlebars.register_helper("must", Box::new(Value(must)));
}

/// A helper that writes something, or nothing.
pub fn writing(
    write: impl Fn(&Helper<'_>, &mut dyn Output) -> HelperResult + Send + Sync + 'static,
) -> Box<dyn HelperDef + Send + Sync> {
    let helper = move |helper: &Helper<'_>,
                       _: &Handlebars<'_>,
                       _: &Context,
                       _: &mut RenderContext<'_, '_>,
                       out: &mut dyn Output|
          -> HelperResult { write(helper, out) };
    Box::new(helper)
}

/// A helper that makes one value of its parameters.
struct Value(fn(&Helper<'_>) -> Result<Json, RenderError>);

impl HelperDef for Value {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let missing = helper.params().iter().find(|param| param.is_value_missing());
        match missing {
            Some(param) => Err(RenderErrorReason::MissingVariable(param.relative_path().cloned()).into()),
            None => (self.0)(helper).map(ScopedJson::Derived),
        }
    }
}

fn needs(what: &str) -> RenderError {
    RenderErrorReason::Other(what.to_owned()).into()
}

fn must(helper: &Helper<'_>) -> Result<Json, RenderError> {
    helper.param(0).map(|param| param.value().clone()).ok_or_else(|| needs("a condition takes one value"))
}

/// `join LIST SEPARATOR`.
fn join(helper: &Helper<'_>) -> Result<Json, RenderError> {
    let usage = || needs("join takes a list and a text: {{join values.x \",\"}}");
    let param = |at: usize| helper.param(at).map(|param| param.value());
    let (Some(Json::Array(items)), Some(Json::String(separator))) = (param(0), param(1)) else { return Err(usage()) };
    let text = |item: &Json| match item {
        Json::String(text) => Ok(text.clone()),
        Json::Number(_) | Json::Bool(_) => Ok(item.to_string()),
        _ => Err(usage()),
    };
    Ok(items.iter().map(text).collect::<Result<Vec<_>, _>>()?.join(separator).into())
}

/// `unitpath PATH` (systemd.unit(5), "String Escaping for Inclusion in Unit Names").
fn unit_path(helper: &Helper<'_>) -> Result<Json, RenderError> {
    let path = helper.param(0).and_then(|param| param.value().as_str()).filter(|path| path.starts_with('/'));
    let path = path.ok_or_else(|| needs("unitpath takes an absolute path"))?;
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/");
    if parts.split('/').any(|part| part == "..") {
        return Err(needs("unitpath takes a path without '..'"));
    }
    if parts.is_empty() {
        return Ok("-".into());
    }
    let escape = |(at, byte): (usize, u8)| match byte {
        b'/' => "-".to_owned(),
        b'.' if at > 0 => ".".to_owned(),
        byte if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':' => char::from(byte).to_string(),
        byte => format!("\\x{byte:02x}"),
    };
    Ok(parts.bytes().enumerate().map(escape).collect::<String>().into())
}
