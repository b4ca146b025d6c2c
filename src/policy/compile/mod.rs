//! From the document to the snapshot file, on the node that authors it. Every fault is told at once.

pub mod builder;
pub mod reader;

use super::Complaint;
use super::files::Files;
use super::files::NoFiles;
use super::sections::access_profiles;
use super::sections::access_restriction;
use super::sections::categories;
use super::sections::client_address;
use super::sections::network;
use super::sections::pac;
use super::sections::parents;
use super::sections::request_types;
use super::sections::templates;
use super::sections::time_profiles;
use super::snapshot;
use crate::limits::POLICY_DOCUMENT_BYTES_MAX;
use crate::limits::POLICY_TEXT_BYTES_MAX;
use builder::Builder;
use reader::Complaints;
use reader::Table;

/// The rule for a client on neither list of Access Restriction.
pub const RULE_ACCESS_DEFAULT: u32 = 0;
/// The rule for a request that no Access Profile decides.
pub const RULE_PROFILES_DEFAULT: u32 = 1;
/// The rule for a tunnel to a port that `[network] connect_ports` does not name.
pub const RULE_CONNECT_PORTS: u32 = 2;
/// How many rules every snapshot has.
pub const FIXED_RULES: usize = 3;

/// Compiles a document to a snapshot file, or says everything that is wrong with it.
pub fn compile(document: &str, version: u64, files: &dyn Files) -> Result<Vec<u8>, Vec<Complaint>> {
    compile_if(document, version, files, |_, _| ())
}

/// Compiles a document that has some sections and may have no other.
pub fn compile_sections(document: &str, sections: &[&str]) -> Result<Vec<u8>, Vec<Complaint>> {
    compile_if(document, 0, &NoFiles, |root, out| root.complain_of_others(sections, out))
}

fn compile_if(
    document: &str,
    version: u64,
    files: &dyn Files,
    also: impl FnOnce(&Table, &mut Complaints),
) -> Result<Vec<u8>, Vec<Complaint>> {
    let mut out = Complaints::new(document);
    if document.len() > POLICY_DOCUMENT_BYTES_MAX {
        let what = format!("the document has {} bytes; {POLICY_DOCUMENT_BYTES_MAX} are accepted", document.len());
        out.whole(what, "put long lists of hosts into files and name them in a category's `files`");
        return Err(out.finish());
    }
    let mut builder = Builder::new(document);
    reader::read_document(document, &mut out, |root, out| {
        also(&root, out);
        read_root(root, files, &mut builder, out);
    });
    let file = if out.is_empty() { builder.finish(&mut out).map(|body| snapshot::write(version, &body)) } else { None };
    match file {
        Some(Ok(file)) if out.is_empty() => Ok(file),
        Some(Err(words)) => {
            out.whole(words, "shorten category lists and templates");
            Err(out.finish())
        }
        _ => Err(out.finish()),
    }
}

/// Sections that define names come before those that refer to them.
fn read_root(mut root: Table, files: &dyn Files, builder: &mut Builder, out: &mut Complaints) {
    if let Some(mut policy) = root.table("policy", out) {
        builder.body.name = policy.text("name", POLICY_TEXT_BYTES_MAX, out).map_or(String::new(), |text| text.value);
        policy.text("comment", POLICY_TEXT_BYTES_MAX, out);
        let contact = policy.text("block_contact", POLICY_TEXT_BYTES_MAX, out);
        builder.body.contact = contact.map_or(String::new(), |text| text.value);
        policy.finish(out);
    }
    templates::compile(&mut root, builder, out);
    time_profiles::compile(&mut root, builder, out);
    request_types::compile(&mut root, builder, out);
    categories::compile(&mut root, files, builder, out);
    network::compile(&mut root, builder, out);
    client_address::compile(&mut root, builder, out);
    pac::compile(&mut root, builder, out);
    access_restriction::compile(&mut root, builder, out);
    access_profiles::compile(&mut root, builder, out);
    parents::compile(&mut root, builder, out);
    root.finish(out);
}
