//! Makes what a pair needs before it is configured: certificates, and the name of the pair.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};
use duolog_transport::{Fingerprint, Identity};
use duolog_wal::ClusterId;

use crate::cli::Keygen;

/// `duolog keygen`.
pub(crate) fn run(options: &Keygen) -> anyhow::Result<()> {
    if options.cluster {
        println!("cluster id  {}", new_cluster()?);
    }
    if let Some(out) = &options.out {
        let fingerprint = identity(out, &options.name)?;
        let (out, name) = (out.display(), &options.name);
        println!("certificate {out}/{name}.crt");
        println!("key         {out}/{name}.key (keep it here, and to its owner)");
        println!("fingerprint {fingerprint} (goes into [peer] of the other node)");
    }
    Ok(())
}

/// A new identity in `out`, as `NAME.crt` and `NAME.key`; neither may exist.
pub(crate) fn identity(out: &Path, name: &str) -> anyhow::Result<Fingerprint> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    ensure!(
        plain && !name.is_empty() && !name.starts_with('.'),
        "\"{name}\" cannot be a certificate's name: use letters, digits, \"-\", \"_\" and \".\""
    );
    std::fs::create_dir_all(out)
        .with_context(|| format!("cannot make the directory {}", out.display()))?;
    let identity = Identity::generate(name).context("cannot make a certificate")?;
    let (certificate, key) = (out.join(format!("{name}.crt")), out.join(format!("{name}.key")));
    identity.store(&certificate, &key).with_context(|| {
        format!(
            "cannot write {} and its key; an identity is never overwritten, so remove an old one \
             that no peer knows any more, or take another --name",
            certificate.display()
        )
    })?;
    Ok(identity.fingerprint())
}

/// The name of a new pair: 128 random bits.
pub(crate) fn new_cluster() -> anyhow::Result<ClusterId> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(ClusterId(u128::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_never_gets_the_name_of_another() {
        assert_ne!(new_cluster().unwrap(), new_cluster().unwrap());
    }

    #[test]
    fn a_name_cannot_lead_out_of_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["../up", "", ".hidden", "a/b"] {
            assert!(identity(directory.path(), name).is_err(), "{name}");
        }
        identity(directory.path(), "node1").unwrap();
        assert!(identity(directory.path(), "node1").is_err(), "an identity was overwritten");
    }
}
