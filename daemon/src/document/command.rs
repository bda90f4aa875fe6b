//! `duolog config`: shows, changes and checks the settings of the pair. A change is a whole text that
//! was made from a version; who was faster is told, and nothing of his is written over.

use std::fmt::Write;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

use super::answer::find;
use super::{Changed, Document, Stamp, edit, import, told, versions};
use crate::act::who;
use crate::cli::{AskNode, CheckFile, EditSettings, Making, SettingsVerb, Wanted};
use crate::config::{Around, Config, Fault, Shared};
use crate::control::{self, Answer, AskError, Question};
use crate::status::moment_ms;
use crate::users::without_hashes;

/// What an empty document is edited from.
const BEGINNING: &str = "\
# The settings of the pair: [pair], [[virtual_ip]], [[service]] and [[user]] (duolog users). Every key is explained in
# packaging/duolog.toml; what is left out is a default.
";

/// Carries it out.
pub(crate) fn run(verb: &SettingsVerb) -> anyhow::Result<ExitCode> {
    match verb {
        SettingsVerb::Show(options) => {
            let mut shown = fetch_version(&options.node, options.version)?;
            if let Some(shown) = shown.as_mut().filter(|_| !options.secrets) {
                shown.text = without_hashes(&shown.text);
            }
            if options.json {
                println!("{}", serde_json::to_string(&told(shown))?);
                return Ok(ExitCode::SUCCESS);
            }
            match shown {
                Some(Document { stamp, text }) => print!("# {}\n{text}", line(&stamp)),
                None => eprintln!("there is no document yet: every setting has its default"),
            }
        }
        SettingsVerb::History(options) => {
            for stamp in history(&options.node)?.iter().rev() {
                if options.json {
                    println!("{}", serde_json::to_string(stamp)?);
                } else {
                    println!("{}", line(stamp));
                }
            }
        }
        SettingsVerb::Set(options) => {
            let value = options.value.as_deref().filter(|_| !options.unset);
            return change(&options.making, Vec::new(), |text| {
                edit::set(text, &options.key, value)
            });
        }
        SettingsVerb::Back(options) => {
            let base = fetch(&options.making.node)?;
            let back = fetch_version(&options.making.node, Some(options.version))?
                .context("there is no document yet, so there is nothing to go back to")?;
            return Ok(report(&submit(&options.making, base.as_ref(), &back.text, Vec::new())?));
        }
        SettingsVerb::Edit(options) => return by_hand(options),
        SettingsVerb::Check(options) => return check(options),
        SettingsVerb::Import(options) => import::run(&options.config)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// One version in a line.
fn line(stamp: &Stamp) -> String {
    let mut line = format!("{}, by {} at {}", stamp.title(), stamp.who, moment_ms(stamp.at_ms));
    if let Some(by) = stamp.aside_for {
        // Writing to a String does not fail.
        write!(line, ", set aside for version {by}").ok();
    }
    line
}

/// Asks the node. Where it does not run and its file is known: what it would start with.
fn ask<T>(
    node: &AskNode,
    question: &Question,
    read: impl FnOnce(Answer) -> Option<T>,
    from_disk: impl FnOnce(Vec<Document>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let socket = crate::socket(node.socket.as_deref(), node.config.as_deref())?;
    match (control::ask(&socket, question, &mut |_| {}), &node.config) {
        (Err(AskError::NotRunning { .. }), Some(file)) => {
            from_disk(versions(&Config::load_own(file)?.documents())?)
        }
        (answer, _) => read(answer?)
            .context("the node answered another question; use the duolog that it runs with"),
    }
}

/// The document that counts; nothing where there is none.
///
/// # Errors
/// Nobody answers, or the settings stand in the node's file.
pub(crate) fn fetch(node: &AskNode) -> anyhow::Result<Option<Document>> {
    fetch_version(node, None)
}

/// Changes the text of the document as `with` says, on both nodes; `words` name the command for the
/// record. Returns the exit code.
///
/// # Errors
/// What `with` says, and why the settings cannot be changed; nothing was changed.
pub(crate) fn change<E>(
    making: &Making,
    words: Vec<String>,
    with: impl Fn(&str) -> Result<String, E>,
) -> anyhow::Result<ExitCode>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let base = fetch(&making.node)?;
    let text = with(base.as_ref().map_or("", |document| &document.text))?;
    Ok(report(&submit(making, base.as_ref(), &text, words)?))
}

fn fetch_version(node: &AskNode, wanted: Option<Wanted>) -> anyhow::Result<Option<Document>> {
    let (version, by) = (wanted.map(|wanted| wanted.version), wanted.and_then(|it| it.node));
    let read = |answer| match answer {
        Answer::Settings(document) => Some(document.map(|document| *document)),
        _ => None,
    };
    ask(node, &Question::Settings { version, node: by }, read, |mut all| match version {
        None => Ok(all.pop()),
        Some(version) => match find(&all, version, by) {
            Some(document) => Ok(Some(document.clone())),
            None => bail!("there is no version {version}; see duolog config history"),
        },
    })
}

fn history(node: &AskNode) -> anyhow::Result<Vec<Stamp>> {
    let read = |answer| match answer {
        Answer::SettingsHistory(stamps) => Some(stamps),
        _ => None,
    };
    ask(node, &Question::SettingsHistory, read, |all| {
        Ok(all.into_iter().map(|document| document.stamp).collect())
    })
}

/// What came of a change.
enum Submitted {
    Changed(Changed),
    Faulty(Vec<Fault>),
}

fn submit(
    making: &Making,
    base: Option<&Document>,
    text: &str,
    words: Vec<String>,
) -> anyhow::Result<Submitted> {
    let node = &making.node;
    let question = Question::ChangeSettings {
        base: base.map(Document::name),
        text: text.to_owned(),
        who: who(),
        here: making.here,
        words,
    };
    let socket = crate::socket(node.socket.as_deref(), node.config.as_deref())?;
    match control::ask(&socket, &question, &mut |_| {})? {
        Answer::SettingsChanged(changed) => Ok(Submitted::Changed(*changed)),
        Answer::SettingsFaulty(faults) => Ok(Submitted::Faulty(faults)),
        _ => bail!("the node answered another question; use the duolog that it runs with"),
    }
}

fn report(submitted: &Submitted) -> ExitCode {
    match submitted {
        Submitted::Changed(changed) => {
            print!("{}", came_to(changed));
            ExitCode::SUCCESS
        }
        Submitted::Faulty(faults) => {
            eprintln!("nothing was changed:\n{}", listed(faults));
            ExitCode::FAILURE
        }
    }
}

/// What a change comes to. Ends with a line feed.
fn came_to(Changed { stamp, both, changes }: &Changed) -> String {
    let here = "on this node; another one takes it over when they meet";
    let on = if *both { "on both nodes" } else { here };
    let mut out = format!("{} counts {on}\n", stamp.title());
    // Writing to a String does not fail.
    if !changes.at_once.is_empty() {
        writeln!(out, "takes effect at once: {}", changes.at_once.join(", ")).ok();
    }
    if !changes.at_restart.is_empty() {
        let keys = changes.at_restart.join(", ");
        writeln!(out, "takes effect when the node is restarted, on each node: {keys}").ok();
    }
    out
}

fn listed(faults: &[Fault]) -> String {
    let lines: Vec<_> = faults.iter().map(|fault| format!("  {fault}")).collect();
    lines.join("\n")
}

/// In an editor, until it can be used or the operator gives up; what was written is never lost.
fn by_hand(EditSettings { making }: &EditSettings) -> anyhow::Result<ExitCode> {
    let base = fetch(&making.node)?;
    let before = base.as_ref().map_or(BEGINNING, |document| &document.text);
    let file = tempfile::Builder::new().prefix("duolog-").suffix(".toml").tempfile()?;
    std::fs::write(file.path(), before)?;
    loop {
        edit_file(file.path())?;
        let text = std::fs::read_to_string(file.path())?;
        if text == before {
            eprintln!("nothing was changed");
            return Ok(ExitCode::SUCCESS);
        }
        let why = match submit(making, base.as_ref(), &text, Vec::new()) {
            Ok(Submitted::Faulty(faults)) => {
                format!("the settings have faults:\n{}", listed(&faults))
            }
            Ok(changed) => return Ok(report(&changed)),
            Err(error) => format!("{error:#}"),
        };
        eprintln!("nothing was changed: {why}");
        if !again()? {
            let (_, path) = file.keep()?;
            eprintln!("what you wrote is in {}", path.display());
            return Ok(ExitCode::FAILURE);
        }
    }
}

fn edit_file(path: &Path) -> anyhow::Result<()> {
    let named = ["VISUAL", "EDITOR"].into_iter().filter_map(|name| std::env::var(name).ok());
    let editor = named.into_iter().find(|name| !name.trim().is_empty());
    let editor = editor.unwrap_or_else(|| "vi".into());
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let ended = Command::new(program)
        .args(words)
        .arg(path)
        .status()
        .with_context(|| format!("cannot run the editor {program}; set EDITOR to one"))?;
    if !ended.success() {
        bail!("the editor {program} ended with {ended}; nothing was changed");
    }
    Ok(())
}

fn again() -> io::Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    eprint!("Edit it again? [Y/n] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(!matches!(answer.trim(), "n" | "N" | "no"))
}

fn check(options: &CheckFile) -> anyhow::Result<ExitCode> {
    let text = if options.file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        text
    } else {
        std::fs::read_to_string(&options.file)
            .with_context(|| format!("cannot read {}", options.file.display()))?
    };
    let faults = match &options.config {
        Some(file) => Shared::parse(&text, &Config::load_own(file)?.around()).err(),
        None if is_of_node(&text) => {
            let base = options.file.parent().map_or_else(PathBuf::new, Path::to_owned);
            Config::parse(&text, &base).err()
        }
        None => Shared::parse(&text, &Around::unknown(options.witness)).err(),
    };
    let Some(faults) = faults else {
        println!("{}: no faults", options.file.display());
        return Ok(ExitCode::SUCCESS);
    };
    for fault in &faults {
        eprintln!("{}: {fault}", options.file.display());
    }
    Ok(ExitCode::FAILURE)
}

/// Whether a text is a node's file and not settings of the pair alone.
fn is_of_node(text: &str) -> bool {
    let lines = text.lines().map(str::trim_start);
    lines.into_iter().any(|line| line.starts_with("[node]") || line.starts_with("[cluster]"))
}
