//! Embeds the pages. With Node there, they are built where they are out of date; without, what was built
//! before is taken, or a page that says what is missing. Never fails for want of Node.
//!
//! `DUOLOG_PAGES=keep` builds nothing and takes what is there.

use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;

/// What of the pages is made, and not written by anybody.
const MADE: [&str; 2] = ["node_modules", "dist"];

const PLACEHOLDER: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
    <title>Duolog</title>\n<h1>The pages are not in this program</h1>\n\
    <p>It was built where there was no Node. Install Node 20.19 or later with npm and build it again, \
    or use a released program. The API is here: see <code>/api/v1/openapi.json</code> and the \
    documentation of the console.</p>\n</html>\n";

fn main() -> io::Result<()> {
    let variable = |name: &str| PathBuf::from(std::env::var_os(name).unwrap_or_default());
    let pages = variable("CARGO_MANIFEST_DIR").join("pages");
    println!("cargo::rerun-if-env-changed=DUOLOG_PAGES");
    println!("cargo::rerun-if-changed=build.rs");
    let dist = pages.join("dist");
    let newest = written(&pages)?;
    // A directory that is not there makes every build run this again: only what exists is named.
    if dist.exists() {
        println!("cargo::rerun-if-changed={}", dist.display());
    }
    let keep = std::env::var("DUOLOG_PAGES").is_ok_and(|how| how == "keep");
    let built = fs::metadata(dist.join("index.html")).and_then(|meta| meta.modified()).ok();
    let stale = built.is_none_or(|built| newest.is_some_and(|newest| newest > built));
    if pages.join("package.json").exists() && stale && !keep {
        build(&pages);
    }
    let mut files = Vec::new();
    if dist.join("index.html").exists() {
        collect(&dist, &dist, &mut files)?;
    } else {
        println!(
            "cargo::warning=the console's pages are not built: a page that says so is embedded"
        );
        files.push(("/index.html".into(), PLACEHOLDER.as_bytes().to_vec()));
    }
    embed(&variable("OUT_DIR"), files)
}

/// When the newest of what the pages are made of was written; cargo looks at all of it.
fn written(pages: &Path) -> io::Result<Option<SystemTime>> {
    let mut newest = None;
    if !pages.exists() {
        return Ok(newest);
    }
    let mut left = vec![pages.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let made = MADE.iter().any(|made| entry.file_name() == *made);
            if made && directory == pages {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_dir() {
                left.push(entry.path());
            } else if kind.is_file() {
                println!("cargo::rerun-if-changed={}", entry.path().display());
                newest = newest.max(entry.metadata()?.modified().ok());
            }
        }
    }
    Ok(newest)
}

/// Builds the pages, where there is npm. What goes wrong is said, and what was built before stays.
fn build(pages: &Path) {
    for words in [&["ci", "--ignore-scripts", "--no-audit", "--no-fund"][..], &["run", "build"]] {
        match Command::new("npm").args(words).current_dir(pages).output() {
            Ok(done) if done.status.success() => {}
            Ok(done) => {
                let said = String::from_utf8_lossy(&done.stderr);
                let last = said.lines().rev().find(|line| !line.trim().is_empty());
                let last = last.unwrap_or("it said nothing");
                println!("cargo::warning=npm {} failed: {last}", words.join(" "));
                return;
            }
            Err(error) => {
                println!(
                    "cargo::warning=npm cannot be run ({error}): the pages are not built anew"
                );
                return;
            }
        }
    }
}

fn collect(root: &Path, at: &Path, files: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    for entry in fs::read_dir(at)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, files)?;
        } else if let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) {
            files.push((format!("/{name}"), fs::read(&path)?));
        }
    }
    Ok(())
}

fn kind(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("json" | "webmanifest") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn embed(out: &Path, mut files: Vec<(String, Vec<u8>)>) -> io::Result<()> {
    // The same pages give the same program.
    files.sort();
    let mut code = String::from("static FILES: &[File] = &[\n");
    for (at, (path, bytes)) in files.iter().enumerate() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(bytes)?;
        let (plain, packed) = (out.join(format!("{at}.page")), out.join(format!("{at}.page.gz")));
        fs::write(&plain, bytes)?;
        fs::write(&packed, gzip.finish()?)?;
        let mut hash = DefaultHasher::new();
        bytes.hash(&mut hash);
        // Vite puts what has a hash in its name below assets/.
        let fixed = path.starts_with("/assets/");
        let etag = format!("\"{:016x}\"", hash.finish());
        writeln!(
            code,
            "    File {{ path: {path:?}, kind: {:?}, fixed: {fixed}, etag: {etag:?}, plain: \
             include_bytes!({:?}), gzip: include_bytes!({:?}) }},",
            kind(path),
            plain.to_string_lossy(),
            packed.to_string_lossy()
        )
        .map_err(io::Error::other)?;
    }
    code.push_str("];\n");
    fs::write(out.join("pages.rs"), code)
}
