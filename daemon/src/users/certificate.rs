//! What a certificate says of a user: a name, and a serial number by which it can be revoked. What
//! the user may do is not taken from it.

use duolog_transport::OF_USER;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a user's certificate says.
#[derive(Debug)]
pub(super) struct OfUser {
    /// The user's name.
    pub name: String,
    /// As [`serial`] writes it.
    pub serial: String,
}

/// Reads a certificate in DER; nothing where it is none of a user, but of a node, which the same
/// authority signed.
pub(super) fn of_user(der: &[u8]) -> Option<OfUser> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let mut units = subject.iter_organizational_unit();
    if units.next()?.as_str().ok()? != OF_USER || units.next().is_some() {
        return None;
    }
    let mut names = subject.iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    let serial = serial(&certificate.raw_serial_as_string())?;
    names.next().is_none().then_some(OfUser { name, serial })
}

/// A serial number as it is kept: small hex digits in pairs with colons between, no zero before
/// them; nothing where the text is none. As people copy it: also without colons.
pub(crate) fn serial(text: &str) -> Option<String> {
    let digits: String = text.trim().chars().filter(|character| *character != ':').collect();
    let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !plain || digits.is_empty() || digits.len() > 40 {
        return None;
    }
    let digits = digits.to_ascii_lowercase();
    let digits = digits.trim_start_matches('0');
    let digits =
        if digits.len().is_multiple_of(2) { digits.to_owned() } else { format!("0{digits}") };
    let pairs: Vec<_> = digits.as_bytes().chunks(2).map(String::from_utf8_lossy).collect();
    (!pairs.is_empty()).then(|| pairs.join(":"))
}

#[cfg(test)]
mod tests {
    use super::serial;

    #[test]
    fn a_serial_number_is_read_however_it_is_copied() {
        for text in ["0a:bc:01", "0ABC01", "00:0A:BC:01", " abc01 "] {
            assert_eq!(serial(text).as_deref(), Some("0a:bc:01"), "{text}");
        }
        for text in ["", "0", "xyz", "anna", &"1".repeat(41)] {
            assert_eq!(serial(text), None, "{text}");
        }
    }
}
