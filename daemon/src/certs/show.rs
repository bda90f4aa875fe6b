//! `duolog certs`; `show` itself: the certificates of a node, for people. Asks nobody.

use std::process::ExitCode;

use jiff::Timestamp;

use super::{days, files, now_s, read, renew, user};
use crate::cli::CertsVerb;
use crate::config::Config;

/// `duolog certs`.
pub(crate) fn run(verb: &CertsVerb) -> anyhow::Result<ExitCode> {
    match verb {
        CertsVerb::Renew(options) => return renew::run(options),
        CertsVerb::User(options) => return user::run(options),
        CertsVerb::Revoke(options) => return user::revoke(options),
        CertsVerb::Show(options) => {
            for (what, path) in files(&Config::load_own(&options.config)?) {
                let read = read(&path)?;
                let date = |seconds| {
                    Timestamp::from_second(seconds).map_or("beyond".into(), |at| at.to_string())
                };
                let left = days(read.until_s - now_s());
                println!("{what:<5} {}", path.display());
                println!("  subject      {}", read.subject);
                println!("  issuer       {}", read.issuer);
                println!("  serial       {}", read.serial);
                println!("  fingerprint  {}", read.fingerprint);
                println!("  key          {}", read.key);
                println!("  good from    {}", date(read.from_s));
                println!("  good until   {} ({left:.0} days)", date(read.until_s));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
