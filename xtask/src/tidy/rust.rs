//! Rules about Rust.

use super::File;

/// Lines of a function. Source: the house's "about 70", and a quarter of grace for a `match` over
/// a closed set.
const MAX_FUNCTION: usize = 88;
/// What may hold `unsafe`: two rooms, and where a thread meets the interpreter.
const UNSAFE_ROOMS: [&str; 3] = [
    "dataplane/codec/",
    "agent/daemon/",
    "sdk/python/src/deliver.rs",
];
/// Rooms without clock, environment, files or network, and what would let them.
const PURE_ROOMS: [&str; 6] = [
    "core/units/src/",
    "core/model/src/",
    "core/state/src/",
    "core/plan/src/",
    "core/ledger/src/",
    "agent/reconcile/src/",
];
const IMPURE: [&str; 6] = [
    "std::time::",
    "std::env",
    "std::fs",
    "std::net",
    "SystemTime",
    "Instant::now",
];
/// Rooms that count in integers alone.
const INTEGER_ROOMS: [&str; 2] = ["core/state/src/", "core/ledger/src/"];
const FLOATS: [&str; 2] = ["f32", "f64"];

/// All of them.
pub fn all(file: File<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut head = file
        .text
        .lines()
        .filter(|l| !l.trim().is_empty() && !l.starts_with("#!["));
    if !is_test(file.name) && head.next().is_none_or(|l| !l.starts_with("//!")) {
        faults.push(file.fault("it does not open with what it owns (//!)"));
    }
    faults.extend(unsafe_code(file));
    faults.extend(purity(file));
    let long = functions(file.text)
        .into_iter()
        .filter(|(_, length, _)| *length > MAX_FUNCTION);
    let long = long.filter(|_| !is_test(file.name));
    faults.extend(long.map(|(start, length, what)| {
        file.fault_at(
            start,
            format!("{what} has {length} lines (at most {MAX_FUNCTION})"),
        )
    }));
    faults
}

/// A file of tests: the file that it tests says what is owned, and a story may be long.
fn is_test(name: &str) -> bool {
    let folders = ["/tests/", "/examples/", "/benches/"];
    name.ends_with("tests.rs") || folders.iter().any(|f| name.contains(f))
}

/// `unsafe` where the house does not allow it.
fn unsafe_code(file: File<'_>) -> Option<String> {
    let forms = [
        concat!("unsa", "fe {"),
        concat!("unsa", "fe fn"),
        concat!("unsa", "fe impl"),
    ];
    let allowed = UNSAFE_ROOMS.iter().any(|room| file.name.starts_with(room));
    let held = code(file.text).any(|(_, line)| forms.iter().any(|w| line.contains(w)));
    (held && !allowed).then(|| file.fault(format!("unsafe outside {}", UNSAFE_ROOMS.join(" and "))))
}

/// What a pure room may not see. Its tests may: they end the file.
fn purity(file: File<'_>) -> Vec<String> {
    let within = |rooms: &[&str]| rooms.iter().any(|room| file.name.starts_with(room));
    let words = |held: bool, words: &'static [&'static str]| if held { words } else { &[] };
    let impure = words(within(&PURE_ROOMS), &IMPURE);
    let floats = words(within(&INTEGER_ROOMS), &FLOATS);
    let product = code(file.text).take_while(|(_, line)| !line.contains("#[cfg(test)]"));
    product
        .flat_map(|(index, line)| {
            let found = impure.iter().chain(floats).find(|w| line.contains(**w));
            found.map(|word| file.fault_at(index, format!("{word} in a room that is free of it")))
        })
        .collect()
}

/// Lines without their comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .enumerate()
}

/// First line (from 0), length and name of every function, by the indentation that rustfmt gives.
fn functions(text: &str) -> Vec<(usize, usize, String)> {
    let mut found = Vec::new();
    let mut open: Vec<(usize, usize, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let bare = line.trim_start();
        let indent = line.len() - bare.len();
        if let Some(name) = function_name(bare) {
            open.push((number, indent, name));
        }
        let closes = bare == "}" && open.last().is_some_and(|(_, at, _)| *at == indent);
        if closes && let Some((start, _, name)) = open.pop() {
            found.push((start, number - start + 1, name));
        }
        // One on a single line, or a trait's without a body.
        let whole = bare.ends_with('}') || bare.ends_with(';');
        if whole && open.last().is_some_and(|(start, ..)| *start == number) {
            open.pop();
        }
    }
    found
}

fn function_name(bare: &str) -> Option<String> {
    let words = [
        "pub ",
        "pub(crate) ",
        "pub(super) ",
        "async ",
        "const ",
        "unsafe ",
        "extern \"C\" ",
    ];
    let mut rest = bare;
    while let Some(shorter) = words.iter().find_map(|w| rest.strip_prefix(w)) {
        rest = shorter;
    }
    let name = rest.strip_prefix("fn ")?;
    Some(
        name.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, text: &str) -> Vec<String> {
        all(File { name, text })
    }

    #[test]
    fn functions_are_measured() {
        let text = "//! x\nimpl A {\n    pub async fn one() {\n        if x {\n        }\n    }\n\n    \
                    fn two() -> u8 { 1 }\n}\nfn three()\nwhere\n    T: U,\n{\n}\n";
        assert_eq!(
            functions(text),
            [(2, 4, "one".to_owned()), (9, 5, "three".to_owned())]
        );
        let long = format!(
            "//! x\nfn a() {{\n{}}}\n",
            "    b();\n".repeat(MAX_FUNCTION)
        );
        assert_eq!(found("cli/src/a.rs", &long).len(), 1);
    }

    #[test]
    fn a_file_opens_with_what_it_owns() {
        assert_eq!(found("cli/src/a.rs", "fn a() {}\n").len(), 1);
        assert_eq!(
            found("cli/src/a.rs", "#![allow(x)]\n//! Owns a.\nfn a() {}\n").len(),
            0
        );
    }

    #[test]
    fn unsafe_keeps_to_its_rooms() {
        let text = concat!("//! Owns x.\nfn a() {\n    unsa", "fe { b() }\n}\n");
        assert_eq!(found("core/x/src/lib.rs", text).len(), 1);
        assert_eq!(found("agent/daemon/src/x.rs", text).len(), 0);
    }

    #[test]
    fn pure_rooms_stay_pure_and_their_tests_are_free() {
        let text = "//! Owns x.\nuse std::time::Instant;\nfn a(x: f64) {} // f64\n";
        assert_eq!(found("core/state/src/x.rs", text).len(), 2);
        assert_eq!(found("core/plan/src/x.rs", text).len(), 1);
        assert_eq!(found("cli/src/x.rs", text).len(), 0);
        let test = "//! Owns x.\n#[cfg(test)]\nmod tests {\n    use std::time::Instant;\n}\n";
        assert_eq!(found("core/state/src/x.rs", test).len(), 0);
    }
}
