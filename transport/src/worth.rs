//! Which frames are worth the compressor's time.
//!
//! On a link that is not behind a commit waits while its frame is compressed: 1 to 5 us for what is
//! short, 5 to 10 us for a page (the more, the longer others had the processor's caches), and the other
//! end takes its time as well. So what is short is left alone: one commit's or those of a few clients,
//! and the headers around it would stay. Worth it are
//!
//! - zeros: a page of a server's log that is begun is written over what an older lap left there, and a
//!   table grows by pages of zeros. They take less time to compress than to encrypt and send;
//! - frames of many commits or a long one ([`LONG`]), of which each pays a part, as long as the
//!   frames before them shrank.
//!
//! On a link that is behind the compressor's time is weighed against that of encrypting and sending, for
//! any frame. Either way, what did not shrink is tried again after a pause that doubles: what comes
//! together is mostly alike.
//!
//! Pure: no socket, no clock, no compressor.

use crate::frame::Content;

/// From so many bytes on a frame is compressed if that was of use before. With 1 KiB, the frames of 8
/// clients, inserts were slower (docs/decisions/the-hot-path.md).
const LONG: usize = 16 << 10;
/// Zeros are counted in rows of so many.
const ROW: usize = 64;
/// Fewer zeros than these are not worth a call.
const ZEROS_MIN: usize = 1024;
/// What compressing has brought on a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Worth {
    /// Shorter frames are never tried.
    least: usize,
    /// What becomes less by no more than one part in so many was not worth it.
    part: usize,
    /// Most frames that go as they are before one is tried again.
    pause_max: u32,
    /// Frames that go as they are before one is tried.
    left: u32,
    /// How many those were the last time.
    pause: u32,
}

impl Worth {
    /// Of a link that is not behind. A quarter less, since commits wait for the compressor.
    pub(crate) const IDLE: Self = Self { least: LONG, part: 4, pause_max: 255, left: 0, pause: 0 };
    /// Of one that is. A sixteenth less is what compressing and decompressing cost, about.
    pub(crate) const BEHIND: Self = Self { least: 1, part: 16, pause_max: 63, left: 0, pause: 0 };

    /// Whether this frame is tried; [`learn`](Self::learn) is then told what it has become.
    pub(crate) fn tries(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() < self.least {
            return false;
        }
        let tries = self.left == 0;
        self.left = self.left.saturating_sub(1);
        tries
    }

    /// Takes in what a frame that was tried has become.
    pub(crate) fn learn(&mut self, content: Content) {
        let (raw_len, wire_len) = (content.raw_len(), content.wire_len());
        let shrank = wire_len <= raw_len - raw_len / self.part;
        self.pause = if shrank { 0 } else { (2 * self.pause + 1).min(self.pause_max) };
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
        let mut worth = Worth::IDLE;
        assert!(!worth.tries(&[7; LONG - 1]) && worth.tries(&[7; LONG]));
    }

    /// A link that is behind tries every frame, and is content with less.
    #[test]
    fn a_link_that_is_behind_is_content_with_less() {
        let shrank = |wire_len| {
            let mut worth = Worth::BEHIND;
            assert!(worth.tries(&[7]));
            worth.learn(Content::Zstd { raw_len: 4000, wire_len });
            worth.tries(&[7])
        };
        assert!(shrank(3750) && !shrank(3751));
        let mut worth = Worth::BEHIND;
        for _ in 0..20 {
            worth.learn(GREW);
        }
        assert_eq!(left_alone(&mut worth), 63);
    }

    /// Bytes that do not shrink cost a try in 256 frames in the end, and those that do again are
    /// compressed from the first try on.
    #[test]
    fn what_brought_nothing_is_tried_more_and_more_seldom() {
        let mut worth = Worth::IDLE;
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
