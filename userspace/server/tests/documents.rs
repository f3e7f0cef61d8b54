//! The documents against the tree: links lead somewhere, and files that are named exist.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The documents, relative to the root.
fn documents() -> Vec<PathBuf> {
    let mut documents: Vec<PathBuf> = [".", "docs", "userspace/server/tests"]
        .iter()
        .flat_map(|folder| fs::read_dir(root().join(folder)).expect(folder))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        // What was is not what is.
        .filter(|path| !path.ends_with("CHANGELOG.md"))
        .collect();
    documents.sort();
    assert!(documents.len() >= 10, "{documents:?}");
    documents
}

/// The names that headings can be linked by, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let kept = heading.trim_start_matches('#').trim().to_lowercase();
            kept.chars()
                .filter(|&c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

#[test]
fn links_lead_to_files_and_headings() {
    let mut links = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).expect("a document");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => document.clone(),
                path => document.with_file_name("").join(path),
            };
            assert!(target.exists(), "{}: {link} leads nowhere", document.display());
            if !anchor.is_empty() {
                let text = fs::read_to_string(&target).expect("a linked document");
                assert!(
                    anchors(&text).iter().any(|heading| heading == anchor),
                    "{}: {link} leads to no heading",
                    document.display()
                );
            }
            links += 1;
        }
    }
    assert!(links > 50, "only {links} links found");
}

#[test]
fn files_that_are_named_exist() {
    let mut files = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).expect("a document");
        for name in text.split(|c: char| c.is_whitespace() || "`(),;:".contains(c)) {
            let known_folder = ["userspace/", "ebpf/", "bench/", "scripts/", "docs/"]
                .iter()
                .any(|folder| name.starts_with(folder));
            let known_extension = Path::new(name)
                .extension()
                .is_some_and(|extension| ["rs", "sh", "toml", "md"].iter().any(|known| extension == *known));
            // `file.rs` stands for any.
            if known_folder && known_extension && !name.contains('*') && !name.ends_with("/file.rs") {
                assert!(root().join(name).exists(), "{}: there is no {name}", document.display());
                files += 1;
            }
        }
    }
    assert!(files > 50, "only {files} files found");
}
