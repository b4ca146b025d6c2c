//! Support, Version: what runs here and on the other nodes, how to upgrade, and what changed (CHANGELOG.md, compiled in).

use crate::admin::Action;
use crate::admin::Outcome;
use crate::portal::web;
use crate::portal::web::Cx;
use crate::portal::web::Shell;
use askama::Template;
use axum::Extension;
use axum::http::StatusCode;
use axum::response::Response;

const CHANGELOG: &str = include_str!("../../CHANGELOG.md");

#[derive(Template)]
#[template(path = "version.html")]
struct VersionPage {
    shell: Shell,
    /// Nodes of another version than this one: name and version.
    others: Vec<(String, String)>,
    nodes: usize,
    changes: Vec<Block>,
}

/// A piece of the changelog.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Block {
    /// A version.
    Version(String),
    /// What kind of changes follow.
    Kind(String),
    Paragraph(Vec<Piece>),
    Items(Vec<Vec<Piece>>),
}

/// A run of text, or of code.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    is_code: bool,
    text: String,
}

/// GET /support/version
pub async fn page(Extension(cx): Extension<Cx>) -> Response {
    let nodes = match cx.ask(Action::Nodes).await {
        Ok(Outcome::Nodes { nodes }) => nodes,
        // What changed is worth reading also where the list of nodes cannot be had.
        _ => Vec::new(),
    };
    let own = &cx.portal.config.version;
    let differs = |version: &str| !version.is_empty() && version != own;
    let others =
        nodes.iter().filter(|node| differs(&node.version)).map(|node| (node.name.clone(), node.version.clone()));
    let (others, nodes) = (others.collect(), nodes.len());
    let page = VersionPage { shell: cx.shell("Version", "version").await, others, nodes, changes: blocks(CHANGELOG) };
    web::render(StatusCode::OK, &page)
}

/// As much of Markdown as the changelog uses: headings, paragraphs, lists one deep, code.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    // A line that begins nothing goes on with what the line before it began.
    let mut open: Option<(bool, String)> = None;
    for line in text.lines().chain([""]) {
        let item = line.strip_prefix("- ");
        let begins = line.is_empty() || line.starts_with('#') || item.is_some();
        if begins && let Some((is_item, text)) = open.take() {
            close(&mut blocks, is_item, &text);
        }
        match (line, item, &mut open) {
            (_, Some(item), _) => open = Some((true, item.to_string())),
            ("", ..) => {}
            (line, _, _) if line.starts_with("### ") => blocks.push(Block::Kind(line[4..].to_string())),
            (line, _, _) if line.starts_with("## ") => blocks.push(Block::Version(line[3..].to_string())),
            // The page has a title of its own.
            (line, _, _) if line.starts_with("# ") => {}
            (line, _, Some((_, text))) => text.extend([" ", line.trim_start()]),
            (line, _, open) => *open = Some((false, line.to_string())),
        }
    }
    blocks
}

fn close(blocks: &mut Vec<Block>, is_item: bool, text: &str) {
    match (is_item, blocks.last_mut()) {
        (true, Some(Block::Items(items))) => items.push(pieces(text)),
        (true, _) => blocks.push(Block::Items(vec![pieces(text)])),
        (false, _) => blocks.push(Block::Paragraph(pieces(text))),
    }
}

fn pieces(text: &str) -> Vec<Piece> {
    let pieces = text.split('`').enumerate();
    let pieces = pieces.map(|(index, text)| Piece { is_code: index % 2 == 1, text: text.to_string() });
    pieces.filter(|piece| !piece.text.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changelogs_markdown_is_read() {
        let plain = |text: &str| Piece { is_code: false, text: text.into() };
        let code = |text: &str| Piece { is_code: true, text: text.into() };
        let text = "# Changelog\n\nNewest\nfirst.\n\n## 0.2.0\n\n### Feature\n- One `a b`\n  goes on.\n- Two.\nstill two\n\n## 0.1.0\n";
        let expected = [
            Block::Paragraph(vec![plain("Newest first.")]),
            Block::Version("0.2.0".into()),
            Block::Kind("Feature".into()),
            Block::Items(vec![vec![plain("One "), code("a b"), plain(" goes on.")], vec![plain("Two. still two")]]),
            Block::Version("0.1.0".into()),
        ];
        assert_eq!(blocks(text), expected);
    }

    /// What administrators read is this version's.
    #[test]
    fn the_changelog_has_a_section_of_this_version() {
        let ours = |block: &Block| matches!(block, Block::Version(name) if name.starts_with(env!("CARGO_PKG_VERSION")));
        assert!(blocks(CHANGELOG).iter().any(ours));
    }
}
