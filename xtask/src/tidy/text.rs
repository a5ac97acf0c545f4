//! Rules about text of any kind.

use std::path::Path;

use super::File;

/// Lines of a source file. Source: the house's "about 500", and a tenth of grace.
const MAX_LINES: usize = 550;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 6] = ["common", "utils", "util", "helpers", "helper", "manager"];
/// Marks of unfinished work, and tests that do not run. Written so that this file does not find
/// itself; a mark stands alone, so that words which contain it are no marks.
const MARKS: [&str; 9] = [
    concat!("to", "do!("),
    concat!("un", "implemented!("),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("d", "bg!("),
    concat!("#[ig", "nore"),
    concat!("pytest.mark.", "skip"),
    concat!("pytest.mark.", "xfail"),
];
/// Folders of somebody's machine.
const HOMES: [&str; 3] = [
    concat!("/ro", "ot/"),
    concat!("/home/", "user"),
    concat!("/Users", "/"),
];
/// Column types that both databases understand.
const SQL_TYPES: [&str; 3] = ["TEXT", "BIGINT", "BYTEA"];

/// A file or folder whose name says nothing.
pub fn name(name: &str) -> Option<String> {
    let path = Path::new(name);
    let mut parts = path
        .iter()
        .chain(path.file_stem())
        .filter_map(|p| p.to_str());
    let empty = parts.find(|p| EMPTY_NAMES.contains(p))?;
    Some(format!("{name}: {empty:?} names nothing; say what it owns"))
}

/// Ends of lines and of the file.
pub fn form(file: File<'_>) -> Vec<String> {
    let mut faults: Vec<String> = file
        .text
        .lines()
        .enumerate()
        .filter(|(_, line)| line.ends_with([' ', '\t', '\r']))
        .map(|(index, _)| file.fault_at(index, "white space at the end of the line"))
        .collect();
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        faults.push(file.fault("the last line has no end"));
    }
    faults
}

/// Unfinished work, tests that do not run, folders of somebody's machine.
pub fn words(file: File<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        faults.extend(
            MARKS
                .iter()
                .filter(|m| stands(line, m))
                .map(|m| file.fault_at(index, format!("{m} is unfinished work"))),
        );
        faults.extend(
            HOMES
                .iter()
                .filter(|h| line.contains(*h))
                .map(|h| file.fault_at(index, format!("{h} is somebody's machine"))),
        );
    }
    faults
}

/// Whether a mark stands in a line, and not as a part of a longer word.
fn stands(line: &str, mark: &str) -> bool {
    let letter = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    line.match_indices(mark).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + mark.len()..].chars().next();
        let grown_before = letter(before) && letter(mark.chars().next());
        let grown_after = letter(after) && letter(mark.chars().last());
        !grown_before && !grown_after
    })
}

/// A source file that should be two.
pub fn length(file: File<'_>) -> Option<String> {
    let lines = file.text.lines().count();
    (lines > MAX_LINES)
        .then(|| file.fault(format!("{lines} lines; split it (at most {MAX_LINES})")))
}

/// Links to files that are not there.
pub fn links(file: File<'_>, root: &Path) -> Vec<String> {
    let folder = Path::new(file.name).parent().unwrap_or(Path::new(""));
    let target = |piece: &str| piece.split([')', '#', ' ']).next().map(ToOwned::to_owned);
    file.text
        .split("](")
        .skip(1)
        .filter_map(target)
        .filter(|t| !t.is_empty() && !t.contains("://") && !t.starts_with("mailto:"))
        .filter(|t| !root.join(folder).join(t).exists())
        .map(|t| file.fault(format!("links to {t}, which is not there")))
        .collect()
}

/// Column types that only one of the databases knows.
pub fn columns(file: File<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let words = ["PRIMARY", "UNIQUE", "CHECK", "FOREIGN", "--"];
        if !line.starts_with("    ") || words.iter().any(|w| line.trim().starts_with(w)) {
            continue;
        }
        let kind = line
            .split_whitespace()
            .nth(1)
            .unwrap_or_default()
            .trim_end_matches(',');
        if !SQL_TYPES.contains(&kind) {
            faults.push(file.fault_at(
                index,
                format!("{kind:?} is none of {}", SQL_TYPES.join(", ")),
            ));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file<'a>(name: &'a str, text: &'a str) -> File<'a> {
        File { name, text }
    }

    #[test]
    fn names_say_something() {
        assert!(name("core/utils/src/lib.rs").is_some());
        assert!(name("core/state/src/helpers.rs").is_some());
        assert!(name("core/state/src/lib.rs").is_none());
    }

    #[test]
    fn lines_and_files_end() {
        assert_eq!(form(file("a.md", "x \ny")).len(), 2);
        assert_eq!(form(file("a.md", "x\ny\n")).len(), 0);
    }

    #[test]
    fn marks_stand_alone() {
        assert_eq!(
            words(file("a.py", &format!("x  # {}: later\n", MARKS[2]))).len(),
            1
        );
        assert_eq!(words(file("a.py", &format!("CUS{}\n", MARKS[2]))).len(), 0);
        assert_eq!(
            words(file("a.rs", &format!("    {}]\n", MARKS[6]))).len(),
            1
        );
        assert_eq!(
            words(file("a.rs", &format!("let a = \"{}x\";\n", HOMES[0]))).len(),
            1
        );
    }

    #[test]
    fn long_files_are_named() {
        assert!(length(file("a.rs", &"x\n".repeat(MAX_LINES))).is_none());
        assert!(length(file("a.rs", &"x\n".repeat(MAX_LINES + 1))).is_some());
    }

    #[test]
    fn links_lead_somewhere() {
        let root = crate::place::root();
        let text = "[a](Cargo.toml) [b](nowhere.md#x) [c](https://example.com) [d](#here)\n";
        assert_eq!(links(file("README.md", text), &root).len(), 1);
    }

    #[test]
    fn columns_fit_both_databases() {
        let text = "CREATE TABLE x (\n    a TEXT NOT NULL,\n    b BOOLEAN NOT NULL,\n    PRIMARY KEY (a)\n);\n";
        assert_eq!(columns(file("a.sql", text)).len(), 1);
    }
}
