//! Templates: the pages that stand in for what was blocked. A template's body is HTML with `{{placeholders}}`.

use crate::limits::POLICY_TEMPLATE_BYTES_MAX;
use crate::limits::POLICY_TEXT_BYTES_MAX;
use crate::policy::compile::builder;
use crate::policy::compile::builder::Builder;
use crate::policy::compile::reader::Complaints;
use crate::policy::compile::reader::Table;
use crate::policy::page;
use crate::policy::snapshot::body::Template;

/// The number of the template for blocks; a template called `blocked` in the document takes its place.
pub const BLOCKED: u16 = 0;
const BLOCKED_NAME: &str = "blocked";

/// Reads `[[templates]]`.
pub fn compile(root: &mut Table, builder: &mut Builder, out: &mut Complaints) {
    let (title, body) = (page::BLOCKED_TITLE.to_string(), page::BLOCKED_BODY.to_string());
    let mut templates = vec![Template { name: BLOCKED_NAME.to_string(), status: 403, title, body }];
    let mut seen: Vec<String> = Vec::new();
    for mut table in root.tables("templates", out) {
        let name = builder::name_of(&mut table, out);
        if let Some(name) = name.as_ref().filter(|name| seen.contains(&name.value)) {
            out.add(
                &name.spot,
                format!("the template `{}` is defined twice", name.value),
                "give one of them another name",
            );
        }
        let name = name.map_or(String::new(), |name| name.value);
        seen.push(name.clone());
        let template = template(name, &mut table, out);
        table.finish(out);
        if template.name == BLOCKED_NAME { templates[0] = template } else { templates.push(template) }
    }
    builder.body.templates = templates;
}

fn template(name: String, table: &mut Table, out: &mut Complaints) -> Template {
    table.text("comment", POLICY_TEXT_BYTES_MAX, out);
    let status = table.number("status", out);
    let good = |status: u64| (400..=599).contains(&status) && status != 401 && status != 407;
    if let Some(said) = status.as_ref().filter(|said| !good(said.value)) {
        let remedy = "write a status from 400 to 599 (not 401 or 407, which ask for credentials)";
        out.add(&said.spot, format!("the status {} cannot stand on a block page", said.value), remedy);
    }
    let status = status.map_or(403, |said| said.value as u16);
    let title = table.text("title", POLICY_TEXT_BYTES_MAX, out);
    let title = title.map_or(page::BLOCKED_TITLE.to_string(), |said| said.value);
    let body = table.text("body", POLICY_TEMPLATE_BYTES_MAX, out);
    if let Some(said) = &body {
        for unknown in page::unknown_placeholders(&said.value) {
            let remedy = builder::near_or(&unknown, page::PLACEHOLDERS.into_iter(), &known());
            out.add(&said.spot, format!("unknown placeholder {{{{{unknown}}}}}"), remedy);
        }
    }
    Template { name, status, title, body: body.map_or(page::BLOCKED_BODY.to_string(), |said| said.value) }
}

fn known() -> String {
    format!("known: {}", page::PLACEHOLDERS.join(", "))
}
