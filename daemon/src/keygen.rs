//! Makes what a pair needs before it is configured: certificates, and the name of the pair.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};
use duolog_beat::Secret;
use duolog_transport::{Fingerprint, Identity};
use duolog_wal::ClusterId;

use crate::cli::Keygen;

/// `duolog keygen`.
pub(crate) fn run(options: &Keygen) -> anyhow::Result<()> {
    if options.cluster {
        println!("cluster id  {}", new_cluster()?);
    }
    if let Some(file) = &options.pair_key {
        shared_key(file)?;
        println!(
            "pair key    {} (copy it to whom it is shared with, and to nobody else)",
            file.display()
        );
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

/// A new key that two processes share, 32 random bytes as hex digits, in a new file that only its
/// owner reads.
pub(crate) fn shared_key(file: &Path) -> anyhow::Result<()> {
    Ok(Secret::generate()?.store(file)?)
}

/// The name of a new pair: 128 random bits.
pub(crate) fn new_cluster() -> anyhow::Result<ClusterId> {
    Ok(ClusterId(u128::from_le_bytes(random()?)))
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_never_gets_the_name_of_another() {
        assert_ne!(new_cluster().unwrap(), new_cluster().unwrap());
    }

    #[test]
    fn a_shared_key_is_for_its_owner_alone_and_never_overwritten() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
        shared_key(&one).unwrap();
        shared_key(&two).unwrap();
        let [one_text, two_text] = [&one, &two].map(|file| std::fs::read_to_string(file).unwrap());
        assert_ne!(one_text, two_text);
        assert_eq!((one_text.len(), one_text.trim().len()), (65, 64));
        assert_eq!(std::fs::metadata(&one).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(shared_key(&one).is_err(), "a key was overwritten");
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
