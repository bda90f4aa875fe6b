//! Gathers the licences of Duolog and of what it is built with: of each crate in the lock file that this
//! program is made of, and of what the pages bring to the browser. From the sources that cargo and npm
//! unpacked; nothing is fetched. A text that cannot be read is left out, never the name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// What a file with a licence is called, in the order in which one is taken.
const NAMES: [&str; 4] = ["LICENSE", "LICENCE", "COPYING", "UNLICENSE"];
/// The longest text that is taken.
const TEXT_MAX: u64 = 64 << 10;

/// All of them, as JSON.
pub(crate) fn gather(root: &Path, pages: &Path) -> String {
    let mut found = BTreeMap::new();
    crates(root, &mut found);
    let used = fs::read(pages.join("package.json")).ok();
    let used = used.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let used = used.as_ref().map(|it| [&it["dependencies"], &it["devDependencies"]]);
    for name in used.into_iter().flatten().filter_map(Value::as_object).flat_map(|all| all.keys()) {
        // Of the tools nothing comes into the pages; Svelte's own code does.
        if name == "svelte" || name == "uplot" {
            page(&pages.join("node_modules").join(name), name, &mut found);
        }
    }
    Value::Array(found.into_values().collect()).to_string()
}

type Found = BTreeMap<(bool, String, String), Value>;

fn crates(root: &Path, found: &mut Found) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = std::env::var("TARGET").unwrap_or_default();
    let mut ask = Command::new(cargo);
    ask.args(["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform"]);
    let told = ask.arg(target).current_dir(root).output();
    let told = told.ok().and_then(|told| serde_json::from_slice::<Value>(&told.stdout).ok());
    let Some(told) = told else {
        println!("cargo::warning=the licences of crates are not gathered: cargo metadata failed");
        return;
    };
    let used = used(&told);
    for package in told["packages"].as_array().into_iter().flatten() {
        if !package["id"].as_str().is_some_and(|id| used.contains(id)) {
            continue;
        }
        let own = package["source"].is_null();
        let text = |key: &str| package[key].as_str().unwrap_or_default();
        // Ours have one licence, which stands once.
        if own && text("name") != "duolog" {
            continue;
        }
        let directory =
            if own { root } else { Path::new(text("manifest_path")).parent().unwrap_or(root) };
        add(found, own, (text("name"), text("version"), text("license")), directory);
    }
}

/// What the program is made of: not what only its tests need.
fn used(told: &Value) -> BTreeSet<&str> {
    let nodes = told["resolve"]["nodes"].as_array();
    let nodes = nodes.into_iter().flatten().filter_map(|node| Some((node["id"].as_str()?, node)));
    let nodes = nodes.collect::<BTreeMap<_, _>>();
    let packages = told["packages"].as_array().into_iter().flatten();
    let duolog = packages.filter(|package| package["name"] == "duolog");
    let mut left = duolog.filter_map(|package| package["id"].as_str()).collect::<Vec<_>>();
    let mut used = BTreeSet::new();
    while let Some(id) = left.pop() {
        if !used.insert(id) {
            continue;
        }
        let Some(node) = nodes.get(id) else { continue };
        for needed in node["deps"].as_array().into_iter().flatten() {
            let mut kinds = needed["dep_kinds"].as_array().into_iter().flatten();
            if kinds.any(|kind| kind["kind"] != "dev") {
                left.extend(needed["pkg"].as_str());
            }
        }
    }
    used
}

fn page(directory: &Path, name: &str, found: &mut Found) {
    let text = fs::read(directory.join("package.json")).unwrap_or_default();
    let Ok(about) = serde_json::from_slice::<Value>(&text) else { return };
    let text = |key: &str| about[key].as_str().unwrap_or_default();
    add(found, false, (name, text("version"), text("license")), directory);
}

fn add(found: &mut Found, own: bool, what: (&str, &str, &str), directory: &Path) {
    let (name, version, licence) = what;
    let told = json!({
        "name": name,
        "version": version,
        "licence": licence,
        "text": text(directory),
    });
    // Ours comes first.
    found.insert((!own, name.to_owned(), version.to_owned()), told);
}

/// The texts in a directory, one after the other.
fn text(directory: &Path) -> Option<String> {
    let mut names = fs::read_dir(directory)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| NAMES.iter().any(|known| name.to_uppercase().starts_with(known)))
        .collect::<Vec<_>>();
    names.sort();
    let texts = names.iter().filter_map(|name| {
        let path = directory.join(name);
        let short = fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() <= TEXT_MAX);
        short.then(|| fs::read_to_string(path).ok()).flatten()
    });
    let texts = texts.collect::<Vec<_>>();
    (!texts.is_empty()).then(|| texts.join("\n\n"))
}
