//! `duolog metrics token`: the token of those who read metrics.

use anyhow::{Context, bail};
use duolog_beat::Secret;
use duolog_engine::disk::{self, DirDisk};

use crate::cli::{MetricsVerb, Token};
use crate::config::Config;

/// `duolog metrics`.
pub(crate) fn run(verb: &MetricsVerb) -> anyhow::Result<()> {
    match verb {
        MetricsVerb::Token(options) => token(options),
    }
}

/// Makes a token and prints it; a file that is there stays unless it is to be replaced.
fn token(options: &Token) -> anyhow::Result<()> {
    let config = Config::load_own(&options.node.config)?;
    let Some(web) = config.web else {
        bail!(
            "{} has no [web], so nobody can ask with a token; add [web], see packaging/duolog.toml",
            options.node.config.display()
        );
    };
    let path = web.metrics_credentials;
    if path.exists() && !options.replace {
        let secret = Secret::read(&path)
            .context("--replace makes a new token in its place; the old one counts no more")?;
        println!("{}", secret.to_hex());
        return Ok(());
    }
    let secret = Secret::generate()?;
    if path.exists() {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            bail!("{} names no file; see metrics_credentials in [web]", path.display());
        };
        let name =
            name.to_str().context("the name of metrics_credentials in [web] is not UTF-8")?;
        let place = DirDisk::open(directory).with_context(|| {
            format!("cannot write in {}; does another command write there?", directory.display())
        })?;
        let text = format!("{}\n", secret.to_hex());
        disk::replace(&place, name, text.as_bytes())
            .with_context(|| format!("cannot write {}; make room", path.display()))?;
    } else {
        secret.store(&path)?;
    }
    println!("{}", secret.to_hex());
    Ok(())
}
