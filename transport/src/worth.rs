//! Which frames of a link that is not behind are worth the compressor's time.
//!
//! A commit waits while its frame is compressed: 1 to 5 us for what is short, 5 to 10 us for a page (the
//! more, the longer others had the processor's caches). So what is short is left alone: that is one
//! commit's, and the headers around it would stay. Worth it are
//!
//! - zeros: a page of a server's log that is begun is written over what an older lap left there, and a
//!   table grows by pages of zeros. They take less time to compress than to encrypt and send;
//! - frames of several commits or a longer one ([`LONG`]), of which each pays a part, as long as the
//!   frames before them shrank: what did not is tried again after a pause that doubles.
//!
//! Pure: no socket, no clock, no compressor.

use crate::frame::Content;

/// From so many bytes on a frame is compressed if that was of use before.
const LONG: usize = 1024;
/// Zeros are counted in rows of so many.
const ROW: usize = 64;
/// Fewer zeros than these are not worth a call.
const ZEROS_MIN: usize = 1024;
/// Most long frames that go as they are before one is tried again.
const PAUSE_MAX: u32 = 255;

/// What compressing long frames has brought on a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Worth {
    /// Long frames that go as they are before one is tried.
    left: u32,
    /// How many those were the last time.
    pause: u32,
}

impl Worth {
    /// Whether this frame is tried; [`learn`](Self::learn) is then told what it has become.
    pub(crate) fn tries(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() < LONG {
            return false;
        }
        let tries = self.left == 0;
        self.left = self.left.saturating_sub(1);
        tries
    }

    /// Takes in what a frame that was tried has become.
    pub(crate) fn learn(&mut self, content: Content) {
        let (raw_len, wire_len) = (content.raw_len(), content.wire_len());
        let shrank = wire_len <= raw_len - raw_len / 4;
        self.pause = if shrank { 0 } else { (2 * self.pause + 1).min(PAUSE_MAX) };
        self.left = self.pause;
    }
}

/// Whether at least a quarter of these bytes is zeros, many in a row.
pub(crate) fn is_hollow(bytes: &[u8]) -> bool {
    let (rows, _) = bytes.as_chunks::<ROW>();
    let enough = (bytes.len() / 4).max(ZEROS_MIN).div_ceil(ROW);
    let zeros = rows.iter().filter(|row| row.iter().fold(0, |all, byte| all | byte) == 0);
    zeros.take(enough).count() == enough
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHRANK: Content = Content::Zstd { raw_len: 4000, wire_len: 3000 };
    const GREW: Content = Content::Zstd { raw_len: 4000, wire_len: 4010 };

    /// How many frames go as they are before one is tried.
    fn left_alone(worth: &mut Worth) -> usize {
        (0..1000).take_while(|_| !worth.tries(&[7; LONG])).count()
    }

    #[test]
    fn what_is_hollow_has_many_zeros_in_a_row() {
        let page = |zeros: usize| [vec![7; 8192 - zeros], vec![0; zeros]].concat();
        assert!(is_hollow(&page(8000)) && is_hollow(&page(2048 + ROW)));
        assert!(!is_hollow(&page(2048 - ROW)), "less than a quarter");
        assert!(!is_hollow(&[0; ZEROS_MIN - 1]) && is_hollow(&[0; ZEROS_MIN]));
        let scattered: Vec<u8> = (0..8192_u32).map(|i| u8::from(i % 50 == 0)).collect();
        assert!(!is_hollow(&scattered));
        assert!(!is_hollow(&[]));
    }

    #[test]
    fn what_is_short_is_never_tried() {
        let mut worth = Worth::default();
        assert!(!worth.tries(&[7; LONG - 1]) && worth.tries(&[7; LONG]));
    }

    /// Bytes that do not shrink cost a try in 256 frames in the end, and those that do again are
    /// compressed from the first try on.
    #[test]
    fn what_brought_nothing_is_tried_more_and_more_seldom() {
        let mut worth = Worth::default();
        let pauses: Vec<usize> = (0..10)
            .map(|_| {
                let pause = left_alone(&mut worth);
                worth.learn(GREW);
                pause
            })
            .collect();
        assert_eq!(pauses, [0, 1, 3, 7, 15, 31, 63, 127, 255, 255]);
        assert_eq!(left_alone(&mut worth), 255);
        worth.learn(SHRANK);
        assert_eq!((left_alone(&mut worth), left_alone(&mut worth)), (0, 0));
        worth.learn(GREW);
        assert_eq!(left_alone(&mut worth), 1, "it begins anew");
    }
}
